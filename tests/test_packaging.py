"""What `pip install` brings: the whole package, its data, the command, the licence."""

import configparser
import importlib.metadata
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import postqueue_api

CLONE = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    """A wheel built from a copy, so that nothing is left in the clone."""
    place = tmp_path_factory.mktemp("packaging")
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(CLONE / "postqueue_api", place / "source" / "postqueue_api", ignore=ignored)
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CLONE / name, place / "source" / name)
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps", "--no-build-isolation")
    subprocess.run((*pip, "--wheel-dir", str(place), str(place / "source")), check=True, timeout=120)
    (built,) = place.glob("*.whl")
    return zipfile.Path(built)


def test_wheel_holds_every_file_of_the_package(wheel: zipfile.Path) -> None:
    here = {
        path.relative_to(CLONE).as_posix()
        for path in (CLONE / "postqueue_api").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    packed = {name for name in wheel.root.namelist() if name.startswith("postqueue_api/") and not name.endswith("/")}
    assert sorted(packed) == sorted(here)


def test_wheel_holds_the_command_and_the_licence(wheel: zipfile.Path) -> None:
    info = wheel / f"postqueue_api-{postqueue_api.__version__}.dist-info"
    entry_points = configparser.ConfigParser()
    entry_points.read_string((info / "entry_points.txt").read_text(encoding="utf-8"))
    assert dict(entry_points["console_scripts"]) == {"postqueue-api": "postqueue_api.cli:main"}
    assert (info / "licenses" / "LICENSE").is_file()


def test_every_dependency_has_a_lowest_and_a_highest_version() -> None:
    requirements = importlib.metadata.requires("postqueue-api") or []
    assert requirements
    unbounded = [line for line in requirements if ">=" not in line or "<" not in line.replace("<=", "")]
    assert unbounded == []
