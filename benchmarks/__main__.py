"""`python -m benchmarks [NAME...]`: run all benchmarks, or those named, and write their figures into README.md."""

import os
import sys
import time
from pathlib import Path

from benchmarks import dashboard, deletes, memory, million, pages, pollers, refresh, tools

_BENCHMARKS = {
    "refresh": refresh.run,
    "pages": pages.run,
    "pollers": pollers.run,
    "memory": memory.run,
    "tools": tools.run,
    "deletes": deletes.run,
    "million": million.run,
    "dashboard": dashboard.run,
}
_README = Path(__file__).with_name("README.md")


def main(names: list[str]) -> int:
    """Run them one after the other. Returns the exit status."""
    if unknown := set(names) - set(_BENCHMARKS):
        print(f"No such benchmark: {', '.join(sorted(unknown))}. There are: {', '.join(_BENCHMARKS)}", file=sys.stderr)
        return 2
    if os.geteuid() != 0:
        print("The benchmarks need root, because Postfix does: sudo make bench", file=sys.stderr)
        return 1
    for name in names or _BENCHMARKS:
        before, began = os.getloadavg()[0], time.monotonic()
        print(f"{name} ...", file=sys.stderr)
        figures = _BENCHMARKS[name]()
        load = f"\n<sub>Load before: {before:.1f}; it took {time.monotonic() - began:.0f} s.</sub>\n"
        print(figures)
        _write(name, figures + load)
    return 0


def _write(name: str, figures: str) -> None:
    """Put the figures between the marks of that name."""
    text = _README.read_text()
    head, begin, rest = text.partition(f"<!-- {name} -->\n")
    _, end, tail = rest.partition(f"<!-- end of {name} -->")
    if not end:
        raise LookupError(f"README.md has no place for {name}")
    _README.write_text(head + begin + "\n" + figures + "\n" + end + tail)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
