"""Sessions: a cookie opens nothing that has ended, whatever it looks like."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask

from postqueue_api.config import Settings
from postqueue_api.web import session
from postqueue_api.web.credentials import Store
from postqueue_api.web.session import IDLE_SECONDS, LIFE_SECONDS, Session, Sessions


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Place:
    """A credentials file that can be changed, with a store that looks at it at once."""

    def __init__(self, path: Path) -> None:
        self.path, self.clock = path, Clock()
        self.write(alice=["operator"])
        self.store = Store(Settings(credentials_file=path), self.clock)
        self.sessions = Sessions(self.store, self.clock)

    def write(self, secret: str = "alice's token", **roles: list[str]) -> None:
        text = "".join(
            f'[{name}]\ntoken_sha256 = "{hashlib.sha256((name + secret).encode()).hexdigest()}"\nroles = {granted}\n'
            for name, granted in roles.items()
        )
        self.path.write_text(text.replace("'", '"'))
        self.path.chmod(0o600)
        self.clock.now += 2


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path / "credentials.toml")


def test_a_cookie_leads_to_its_principal_with_the_roles_of_now(place: Place) -> None:
    cookie = place.sessions.begin("alice")
    found = place.sessions.find(cookie)
    assert found is not None
    assert found.principal.name == "alice"
    assert found.principal.roles == {"operator", "viewer"}
    place.write(alice=["viewer", "content"])
    found = place.sessions.find(cookie)
    assert found is not None
    assert found.principal.roles == {"viewer", "content"}


ENDS: dict[str, Callable[[Place, Session], object]] = {
    "logout": lambda place, found: place.sessions.end(found),
    "a changed credential": lambda place, _: place.write("another token", alice=["operator"]),
    "a removed principal": lambda place, _: place.write(bob=["operator"]),
}


@pytest.mark.parametrize("kind", ENDS)
def test_what_ends_a_session_ends_every_copy_of_its_cookie_for_good(place: Place, kind: str) -> None:
    cookie = place.sessions.begin("alice")
    found = place.sessions.find(cookie)
    assert found is not None
    ENDS[kind](place, found)
    assert place.sessions.find(cookie) is None
    place.write(alice=["operator"])
    assert place.sessions.find(cookie) is None


def test_other_sessions_of_the_same_principal_outlive_a_logout(place: Place) -> None:
    one, other = place.sessions.begin("alice"), place.sessions.begin("alice")
    found = place.sessions.find(one)
    assert found is not None
    place.sessions.end(found)
    assert place.sessions.find(one) is None
    assert place.sessions.find(other) is not None


def test_a_session_ends_when_it_is_idle(place: Place) -> None:
    cookie = place.sessions.begin("alice")
    place.clock.now += IDLE_SECONDS - 1
    assert place.sessions.find(cookie) is not None
    place.clock.now += IDLE_SECONDS
    assert place.sessions.find(cookie) is None


def test_a_session_ends_after_half_a_day_however_busy_it_is(place: Place) -> None:
    cookie = place.sessions.begin("alice")
    for _ in range(LIFE_SECONDS // IDLE_SECONDS):
        place.clock.now += IDLE_SECONDS - 1
        assert place.sessions.find(cookie) is not None
    place.clock.now += IDLE_SECONDS - 1
    assert place.sessions.find(cookie) is None


def test_a_cookie_of_another_start_of_the_service_opens_nothing(place: Place) -> None:
    cookie = place.sessions.begin("alice")
    assert Sessions(place.store, place.clock).find(cookie) is None


def test_no_cookie_that_was_touched_opens_anything(place: Place) -> None:
    cookie = place.sessions.begin("alice")
    payload, _, signature = cookie.rpartition(".")
    unsigned = place.sessions._cookies.dump_payload(["alice", "made-up", 1000.0, "0" * 40]).decode()
    forged = [
        "",
        ".",
        "x",
        payload,
        f"{payload}.",
        f"{payload}.{signature[::-1]}",
        f"{unsigned}.{signature}",
        cookie[:-1],
    ]
    forged += [
        cookie[:at] + ("A" if cookie[at] != "A" else "B") + cookie[at + 1 :] for at in range(0, len(cookie) - 1, 7)
    ]
    assert [each for each in forged if place.sessions.find(each) is not None] == []
    assert place.sessions.find(cookie) is not None


def test_each_session_has_a_token_of_its_own(place: Place) -> None:
    tokens = {found.token for _ in range(3) if (found := place.sessions.find(place.sessions.begin("alice")))}
    assert len(tokens) == 3


def test_nobody_begins_a_session_who_is_not_in_the_credentials(place: Place) -> None:
    with pytest.raises(LookupError):
        place.sessions.begin("mallory")


@pytest.mark.parametrize(
    ("headers", "form", "good"),
    [
        ({"X-CSRF-Token": "the-token"}, {}, True),
        ({}, {"csrf_token": "the-token"}, True),
        ({}, {}, False),
        ({"X-CSRF-Token": ""}, {}, False),
        ({"X-CSRF-Token": "another"}, {"csrf_token": "the-token"}, False),
        ({}, {"csrf_token": "the-toke"}, False),
        ({}, {"csrf_token": "thé-token"}, False),
    ],
)
def test_a_change_carries_the_token_in_a_header_or_a_form(
    headers: dict[str, str], form: dict[str, str], good: bool
) -> None:
    found = Session("id", None, "the-token")  # type: ignore[arg-type]
    with Flask(__name__).test_request_context("/", method="POST", headers=headers, data=form):
        assert session.has_token(found) is good


@pytest.mark.parametrize(("scheme", "name"), [("http", session.COOKIE), ("https", f"__Host-{session.COOKIE}")])
def test_the_cookie_is_for_this_host_and_no_script(scheme: str, name: str) -> None:
    app = Flask(__name__)
    with app.test_request_context("/", base_url=f"{scheme}://mail.example.org"):
        response = app.make_response("")
        session.give(response, "value")
        written = response.headers["Set-Cookie"]
    assert written.split("; ")[0] == f"{name}=value"
    attributes = set(written.split("; ")[1:])
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= attributes
    assert ("Secure" in attributes) is (scheme == "https")
    assert not any(each.startswith(("Domain", "Max-Age", "Expires")) for each in attributes)
