"""The OpenAPI document against the live service: schemathesis asks what it allows, and much that it does not.

Left out, with the reason:
- the check that what fits the schema is accepted: a queue ID, a cursor or an operation must exist as well, and bounds
  must not contradict each other, which no schema says;
- the check that what does not fit is refused: tests/live/test_bad_input.py and test_search.py have it, field by field;
- the check that a route cannot be used without a credential: tests/live/test_auth.py walks through all of them;
- methods that a route does not take: tests/live/test_bad_input.py has them.
Nothing is left out of the routes: changes are asked for too, so the sandbox is one of its own.
"""

import os
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from postqueue_api.sandbox import Sandbox, fresh_directory
from postqueue_api.sandbox.sink import LOOPBACK
from tests.live import service as services
from tests.live.mailbox import Mailbox
from tests.live.service import AUTHORIZATION, Service

SEED = int(os.environ.get("SCHEMA_SEED", "1"))
CHECKS = [
    schemathesis.checks.not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@schemathesis.serializer("application/x-tar")
def as_it_is(_: Any, value: Any) -> bytes:
    """A tar is bytes; schemathesis makes texts of all kinds, which are none."""
    return str(value).encode("utf-8", "surrogatepass")


@pytest.fixture(scope="module")
def own_service() -> Iterator[Service]:
    with Sandbox(fresh_directory()) as box:
        mailbox = Mailbox(box)
        mailbox.deferred("a@full.example", "b@strange.test")
        mailbox.held()
        # A delivery that hangs must not hold up each change.
        with services.started(box, {"lock_wait_seconds": "1", "snapshot_max_age_seconds": "1"}) as made:
            yield made


def operations(service: Service) -> list[Any]:
    document: Any = schemathesis.openapi.from_dict(service.ask("GET", "/openapi.json", None).json())
    document.config.update(base_url=f"http://{LOOPBACK}:{service.port}")
    return [found.ok() for found in document.get_all_operations()]


def check(operation: Any, mode: GenerationMode) -> int:
    """Ask in some ways, the same in each run; another SCHEMA_SEED asks in others. Returns:  how many"""
    asked = []

    @seed(SEED)
    @settings(
        max_examples=12,
        deadline=None,
        database=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        asked.append(case)
        case.call_and_validate(headers={"Authorization": AUTHORIZATION["mover"]}, checks=CHECKS, timeout=30)

    ask()
    return len(asked)


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE], ids=["fits", "does-not-fit"])
def test_every_answer_is_one_that_the_document_knows(own_service: Service, mode: GenerationMode) -> None:
    found = operations(own_service)
    assert len(found) > 20
    for operation in found:
        if mode is GenerationMode.POSITIVE or operation.query.items or operation.body.items:
            assert check(operation, mode) > 0, operation.label
