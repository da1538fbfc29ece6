"""What web's workers count lies in files (counters.py), and one that was only just made is empty."""

from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.mmap_dict import MmapedDict, mmap_key

from postqueue_api.web.metrics import Counted


def test_a_file_that_is_still_empty_does_not_keep_the_others_from_being_summed_up(tmp_path: Path) -> None:
    key = mmap_key("seen_total", "seen_total", [], [], "What was seen.")
    for number, value in enumerate((2.0, 3.0)):
        file = MmapedDict(str(tmp_path / f"counter_{number}.db"))  # type: ignore[no-untyped-call]
        file.write_value(key, value, 0.0)  # type: ignore[no-untyped-call]
        file.close()  # type: ignore[no-untyped-call]
    (tmp_path / "counter_9.db").touch()
    registry = CollectorRegistry()
    registry.register(Counted(None, str(tmp_path)))  # type: ignore[no-untyped-call]
    assert b"seen_total 5.0" in generate_latest(registry)
