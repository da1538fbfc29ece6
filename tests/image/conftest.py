"""The task under test, and the figures that are told at the end."""

import hashlib
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.image.task import Task, megabytes, podman

TOKEN = secrets.token_urlsafe(32)
FIGURES: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--image-volumes", type=Path, help="an empty directory for the volumes of the containers")


@pytest.fixture(scope="session")
def volumes(request: pytest.FixtureRequest) -> Path:
    directory: Path = request.config.getoption("--image-volumes")
    return directory


@pytest.fixture(scope="session")
def credentials() -> str:
    digest = hashlib.sha256(TOKEN.encode()).hexdigest()
    return f'[tester]\ntoken_sha256 = "{digest}"\nroles = ["admin", "content"]\n'


@pytest.fixture(scope="session")
def task(volumes: Path, credentials: str) -> Iterator[Task]:
    found = Task(volumes, {"POSTQUEUE_API_CREDENTIALS": credentials})
    found.start()
    for name in found.containers:
        FIGURES.append(f"{name}: healthy after {found.seconds[name]:.1f} s, {megabytes(name):.0f} MB of memory")
    yield found
    podman("rm", "--force", "--ignore", "--time", "1", *found.containers)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for figure in FIGURES:
        terminalreporter.write_line(figure)
