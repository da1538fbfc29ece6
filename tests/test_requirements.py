"""deploy/requirements.txt: what the image installs fits setup.cfg, is pinned, and names no place to get it from."""

import configparser
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "deploy" / "requirements.txt").read_text()
PINS = dict(re.findall(r"^([a-z0-9.-]+)==(\S+) \\$", TEXT, re.MULTILINE))


def wanted() -> list[Requirement]:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return [Requirement(line) for line in parser["options"]["install_requires"].split("\n") if line]


@pytest.mark.parametrize("requirement", wanted(), ids=str)
def test_what_setup_cfg_asks_for_is_pinned_within_its_bounds(requirement: Requirement) -> None:
    assert PINS[canonicalize_name(requirement.name)] in requirement.specifier


def test_every_line_is_a_pin_or_a_hash_of_one() -> None:
    lines = [line for line in TEXT.splitlines() if not line.startswith("#")]
    hashes = [line for line in lines if re.fullmatch(r"    --hash=sha256:[0-9a-f]{64}( \\)?", line)]
    assert len(lines) == len(PINS) + len(hashes)
    assert len(hashes) >= 2 * len(PINS)


def test_no_registry_is_named() -> None:
    assert "://" not in TEXT
    assert not [line for line in TEXT.splitlines() if line.startswith("-")]
