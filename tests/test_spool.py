"""What is in the queue directories, on directories as Postfix makes them."""

from pathlib import Path

import pytest

from postqueue_api.postfix import spool

QUEUES = ("maildrop", "incoming", "active", "deferred", "hold")


@pytest.fixture
def queue_directory(tmp_path: Path) -> Path:
    for name in (*QUEUES, "defer"):
        (tmp_path / name).mkdir()
    return tmp_path


def put(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_an_empty_queue_has_explicit_zeros(queue_directory: Path) -> None:
    assert spool.count(queue_directory) == dict.fromkeys(QUEUES, 0)


@pytest.mark.parametrize("hashes", ["", "4", "4/A", "4/A/0/1/F"])
def test_messages_are_found_at_every_depth_of_hash_directories(queue_directory: Path, hashes: str) -> None:
    put(queue_directory / "deferred" / hashes / "4jY9mn3nLLz2FfH9")
    put(queue_directory / "deferred" / hashes / "1A2B3C4D5")
    put(queue_directory / "defer" / hashes / "4jY9mn3nLLz2FfH9")
    assert set(spool.queue_ids(queue_directory, "deferred")) == {"4jY9mn3nLLz2FfH9", "1A2B3C4D5"}
    assert spool.count(queue_directory) == {**dict.fromkeys(QUEUES, 0), "deferred": 2}


@pytest.mark.parametrize("name", [".postqueue-api-0123456789abcdef", "12345.6789", "ABC", "4jY9mn3nLLz2FfH9\n"])
def test_what_has_no_name_of_a_message_is_not_counted(queue_directory: Path, name: str) -> None:
    put(queue_directory / "incoming" / name)
    assert spool.count(queue_directory)["incoming"] == 0


def test_a_queue_that_cannot_be_seen_is_an_error_and_not_empty(queue_directory: Path) -> None:
    (queue_directory / "active").rmdir()
    with pytest.raises(OSError, match="active"):
        spool.count(queue_directory)
