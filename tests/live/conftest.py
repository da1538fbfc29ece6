"""One sandbox and one service for all live tests; each test sends mail of its own."""

from collections.abc import Iterator

import pytest

from postqueue_api.sandbox import Sandbox, fresh_directory
from tests.live import service as services
from tests.live.agent_with_failpoint import Starter
from tests.live.mailbox import Mailbox
from tests.live.service import Service


@pytest.fixture(scope="session")
def lasting_box() -> Iterator[Sandbox]:
    with Sandbox(fresh_directory()) as made:
        yield made


@pytest.fixture(scope="module")
def box(lasting_box: Sandbox) -> Iterator[Sandbox]:
    """Without mail of other modules' tests, which a flush would try as well."""
    yield lasting_box
    lasting_box.empty()


@pytest.fixture(scope="session")
def service(lasting_box: Sandbox) -> Iterator[Service]:
    """The service whose commands are watched; it waits one second for what is being delivered."""
    with services.place() as directory:
        commands = services.watched_commands(directory / "commands")
        # No samples: their listings would be counted among those that a test caused.
        given = {"command_directory": str(commands), "lock_wait_seconds": "1", "sample_interval_seconds": "0"}
        with services.started(lasting_box, given) as made:
            yield made


@pytest.fixture
def mailbox(box: Sandbox) -> Mailbox:
    return Mailbox(box)


@pytest.fixture(scope="module")
def starter() -> Iterator[Starter]:
    """What starts agents that end themselves at a step."""
    made = Starter()
    yield made
    made.close()


@pytest.fixture(scope="session")
def short_box() -> Iterator[Sandbox]:
    """A second Postfix: short queue IDs, no fast flush, and no mail but that of the present test."""
    with Sandbox(fresh_directory(), long_queue_ids=False, extra_main_cf={"fast_flush_domains": ""}) as made:
        yield made


@pytest.fixture(scope="session")
def short_service(short_box: Sandbox) -> Iterator[Service]:
    with services.started(short_box, {"lock_wait_seconds": "1"}) as made:
        yield made


@pytest.fixture
def short_mailbox(short_box: Sandbox) -> Mailbox:
    mailbox = Mailbox(short_box)
    mailbox.postfix("postsuper", "-d", "ALL")
    return mailbox
