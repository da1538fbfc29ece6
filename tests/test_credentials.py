"""The credentials file and the store: what is accepted, what is refused, what is remembered."""

import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import bcrypt
import pytest

from postqueue_api.config import Settings
from postqueue_api.errors import Misconfigured
from postqueue_api.web import credential_file
from postqueue_api.web.credentials import Principal, Store, parse


def hashed(password: str, cost: int = 10) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()


PASSWORD, TOKEN = "correct horse battery", "A-random-token-of-some-length"
HASH, DIGEST = hashed(PASSWORD), hashlib.sha256(TOKEN.encode()).hexdigest()
ALICE = f'[alice]\npassword_hash = "{HASH}"\nroles = ["operator", "content"]\n'
GRAFANA = f'[grafana]\ntoken_sha256 = "{DIGEST}"\nroles = ["viewer"]\n'


class Clock:
    """Stands still until it is told."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "credentials.toml"
    path.write_text(ALICE + GRAFANA)
    path.chmod(0o640)
    return path


def text_store(text: str = ALICE + GRAFANA, clock: Callable[[], float] = time.monotonic) -> Store:
    return Store(Settings(credentials=text), clock)


@pytest.mark.parametrize(
    ("granted", "expanded", "shown"),
    [
        ('"viewer"', {"viewer"}, "viewer"),
        ('"operator"', {"operator", "viewer"}, "operator"),
        ('"admin"', {"admin", "operator", "viewer"}, "admin"),
        ('"content"', {"content"}, "content"),
        ('"operator", "content"', {"operator", "viewer", "content"}, "operator+content"),
    ],
)
def test_a_role_includes_those_below_it_and_content_stands_beside(granted: str, expanded: set[str], shown: str) -> None:
    principal = parse(f'[a]\ntoken_sha256 = "{DIGEST}"\nroles = [{granted}]')["a"].principal
    assert principal == Principal("a", frozenset(expanded))
    assert principal.role == shown


ROLES_LINE = 'roles = ["viewer"]\n'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "There is no credential"),
        ("# nothing\n", "There is no credential"),
        ("[alice", "not TOML"),
        (ALICE + ALICE, "not TOML"),
        ("\ufeff" + ALICE, "not TOML"),
        ("alice = 1", "alice must be a table"),
        (ALICE.replace("alice", '"a:b"'), "'a:b' is not a name"),
        (ALICE.replace("alice", '"a\\nb"'), "'a\\nb' is not a name"),
        (ALICE.replace("alice", '"' + "a" * 65 + '"'), "is not a name"),
        (ALICE.replace("alice", "alice.smith"), '["alice.smith"]'),
        (ALICE + "shell = true", "unknown key 'shell'"),
        (ALICE.replace("operator", "root"), "unknown role 'root'"),
        (ALICE.replace('"operator", "content"', ""), "no roles"),
        (ALICE.replace('["operator", "content"]', '"operator"'), "no roles"),
        (ALICE.replace('["operator", "content"]', '[["operator"]]'), "unknown role"),
        ("[alice]\n" + ROLES_LINE, "neither password_hash nor token_sha256"),
        ('[alice]\npassword_hash = ""\n' + ROLES_LINE, "not a bcrypt hash"),
        ('[alice]\npassword_hash = "plain text"\n' + ROLES_LINE, "not a bcrypt hash"),
        ("[alice]\npassword_hash = 12\n" + ROLES_LINE, "not a bcrypt hash"),
        (ALICE.replace(HASH, HASH[:-1]), "not a bcrypt hash"),
        (ALICE.replace(HASH, HASH + "\\n"), "not a bcrypt hash"),
        # A salt whose last character carries bits that no salt has: bcrypt would raise at the first request.
        (ALICE.replace(HASH, HASH[:28] + "B" + HASH[29:]), "not a bcrypt hash"),
        (ALICE.replace("$2b$10$", "$2b$09$"), "cost 9; accepted: 10 to 15"),
        (ALICE.replace("$2b$10$", "$2b$31$"), "cost 31; accepted: 10 to 15"),
        ('[alice]\ntoken_sha256 = "abc"\n' + ROLES_LINE, "not 64 hex digits"),
        (f'[alice]\ntoken_sha256 = "{DIGEST}\\n"\n' + ROLES_LINE, "not 64 hex digits"),
        (f'[alice]\ntoken_sha256 = "{hashlib.sha256().hexdigest()}"\n' + ROLES_LINE, "is empty or"),
        (f'[alice]\ntoken_sha256 = "{hashlib.sha256(b"alice").hexdigest()}"\n' + ROLES_LINE, "everybody tries"),
        (f'[alice]\ntoken_sha256 = "{hashlib.sha256(b"changeme").hexdigest()}"\n' + ROLES_LINE, "everybody tries"),
        (GRAFANA + GRAFANA.replace("grafana", "other"), "[grafana] and [other] have the same token"),
    ],
    ids=lambda value: None if len(value) < 60 else "text",  # the hash is another one in each process
)
def test_a_text_that_cannot_be_used_is_refused_in_words_that_hold_no_secret(text: str, says: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        parse(text)
    assert says in caught.value.detail
    for secret in (HASH, HASH[10:40], DIGEST, "plain text"):
        assert secret not in caught.value.detail


@pytest.mark.parametrize("prefix", ["$2a$", "$2b$", "$2y$"])
def test_hashes_of_htpasswd_and_others_are_accepted(prefix: str) -> None:
    store = text_store(ALICE.replace("$2b$", prefix))
    assert store.verify_password("alice", PASSWORD) is not None


@pytest.mark.parametrize("password", ["alice", "admin", "password", "changeme", "postqueue", "secret", "123456"])
def test_a_password_that_everybody_tries_first_stops_the_start(password: str) -> None:
    store = text_store(ALICE.replace(HASH, hashed(password)))
    with pytest.raises(Misconfigured, match=r"\[alice\] has a password that everybody tries first"):
        store.check_at_start()


@pytest.mark.parametrize("token", ["", "a", "x7", "abc", "007", "1234", "bob", "Secret", "ADMIN", "postqueue"])
def test_a_token_that_is_short_or_that_everybody_tries_first_is_refused(token: str) -> None:
    digest = hashlib.sha256(token.encode()).hexdigest()
    with pytest.raises(Misconfigured, match=r"\[bob\] has a token that .*postqueue-api credential"):
        parse(f'[bob]\ntoken_sha256 = "{digest}"\nroles = ["viewer"]\n')


def test_good_passwords_and_tokens_pass_the_check_at_start() -> None:
    text_store().check_at_start()


@pytest.mark.parametrize(
    ("name", "password"),
    [
        ("alice", "wrong"),
        ("alice", ""),
        ("alice", PASSWORD + "\0"),
        ("alice", PASSWORD + "x" * 80),
        ("alice", "\udc80"),
        ("Alice", PASSWORD),
        ("bob", PASSWORD),
        ("", ""),
        ("grafana", TOKEN),
        ("grafana", ""),
    ],
)
def test_a_wrong_name_or_password_is_nobody(name: str, password: str) -> None:
    assert text_store().verify_password(name, password) is None


def test_no_more_than_72_bytes_of_a_password_count() -> None:
    store = text_store(ALICE.replace(HASH, hashed("x" * 72)))
    assert store.verify_password("alice", "x" * 72) is not None
    assert store.verify_password("alice", "x" * 73) is None


def test_a_right_password_is_its_principal() -> None:
    assert text_store().verify_password("alice", PASSWORD) == parse(ALICE)["alice"].principal


@pytest.mark.parametrize("token", ["", "wrong", TOKEN + "x", DIGEST, PASSWORD, "\udc80"])
def test_a_wrong_token_is_nobody(token: str) -> None:
    assert text_store().verify_token(token) is None


def test_a_right_token_is_its_principal() -> None:
    found = text_store().verify_token(TOKEN)
    assert found is not None
    assert found.name == "grafana"


def seconds(call: Callable[[], object]) -> float:
    """Of CPU, which other work on the machine hardly changes."""
    began = time.thread_time()
    call()
    return time.thread_time() - began


@pytest.mark.parametrize(("name", "password"), [("bob", "wrong"), ("grafana", "wrong"), ("alice", "x" * 100)])
def test_who_is_unknown_takes_as_long_as_a_wrong_password(name: str, password: str) -> None:
    store = text_store()
    wrong = min(seconds(lambda: store.verify_password("alice", "wrong")) for _ in range(3))
    unknown = min(seconds(lambda: store.verify_password(name, password)) for _ in range(3))
    assert unknown > wrong / 2


def test_a_right_password_costs_bcrypt_once_a_minute(clock: Clock) -> None:
    store = text_store(clock=clock)

    def cost() -> float:
        return seconds(lambda: store.verify_password("alice", PASSWORD))

    first = cost()
    clock.now += 59
    assert min(cost() for _ in range(3)) < first / 10
    clock.now += 2
    assert cost() > first / 3


def test_a_wrong_password_is_not_let_in_by_the_memory_of_a_right_one() -> None:
    store = text_store()
    assert store.verify_password("alice", PASSWORD)
    assert store.verify_password("alice", PASSWORD + "x") is None
    assert store.verify_password("alic", "e" + PASSWORD) is None


def test_what_is_remembered_fits_one_name_one_stored_hash_and_one_password() -> None:
    store, other = text_store(), parse(ALICE.replace(HASH, hashed(PASSWORD)))["alice"]
    alice, bob = parse(ALICE)["alice"], parse(ALICE.replace("alice", "bob"))["bob"]
    cases = [(alice, b"a"), (alice, b"b"), (bob, b"a"), (other, b"a")]
    assert len({store._remembered.key(entry, password) for entry, password in cases}) == len(cases)
    assert store._remembered.key(alice, b"a") != text_store()._remembered.key(alice, b"a")


def test_the_memory_is_bounded_and_holds_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postqueue_api.web.credentials._REMEMBER_PASSWORDS", 3)
    store = text_store()
    for number in range(10):
        store._remembered.add(b"%d" % number)
        assert len(store._remembered._until) <= 3
    store.verify_password("alice", PASSWORD)
    assert PASSWORD not in repr(store._remembered._until)


def test_a_changed_file_is_in_force_a_second_later(file: Path, clock: Clock) -> None:
    store = Store(Settings(credentials_file=file), clock)
    assert store.verify_password("alice", PASSWORD)
    file.write_text(ALICE.replace(HASH, hashed("another long password")).replace("operator", "viewer"))
    clock.now += 0.5
    assert store.verify_password("alice", PASSWORD), "looked at more than once a second"
    clock.now += 1
    assert store.verify_password("alice", PASSWORD) is None, "the memory outlived the entry"
    assert store.verify_token(TOKEN) is None
    found = store.verify_password("alice", "another long password")
    assert found == Principal("alice", frozenset({"viewer", "content"}))
    assert store.problem is None


def test_a_role_taken_away_is_gone_though_the_password_is_remembered(file: Path, clock: Clock) -> None:
    store = Store(Settings(credentials_file=file), clock)
    store.verify_password("alice", PASSWORD)
    file.write_text(ALICE.replace("operator", "viewer"))
    clock.now += 2
    found = store.verify_password("alice", PASSWORD)
    assert found is not None
    assert "operator" not in found.roles


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda file: file.write_text("[alice"), "not TOML"),
        (lambda file: file.write_text(""), "no credential"),
        (lambda file: file.write_bytes(b"\xff"), "not UTF-8"),
        (lambda file: file.write_text(ALICE.replace(HASH, hashed("admin"))), "everybody tries first"),
        (lambda file: file.unlink(), "cannot be read"),
        (lambda file: file.chmod(0o644), "mode 0644"),
    ],
)
def test_a_file_that_breaks_later_leaves_the_old_entries_in_force_and_says_so_once(
    spoil: Callable[[Path], object], says: str, file: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    store = Store(Settings(credentials_file=file), clock)
    spoil(file)
    for _ in range(3):
        clock.now += 2
        assert store.verify_password("alice", PASSWORD)
    assert store.problem is not None
    assert says in store.problem
    assert str(file) not in store.problem
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    file.unlink(missing_ok=True)
    file.write_text(GRAFANA)
    file.chmod(0o640)
    clock.now += 2
    assert store.problem is None
    assert store.verify_password("alice", PASSWORD) is None


def test_a_mode_that_is_mended_is_noticed(file: Path, clock: Clock) -> None:
    store = Store(Settings(credentials_file=file), clock)
    file.chmod(0o666)
    clock.now += 2
    assert store.problem is not None
    file.chmod(0o640)
    clock.now += 2
    assert store.problem is None


@pytest.mark.parametrize("mode", [0o644, 0o660, 0o642, 0o604, 0o666])
def test_a_file_open_to_others_stops_the_start(mode: int, file: Path) -> None:
    file.chmod(mode)
    with pytest.raises(Misconfigured, match=f"mode {mode:04o}.*chmod 0640"):
        Store(Settings(credentials_file=file))


@pytest.mark.parametrize("mode", [0o640, 0o600, 0o440, 0o400])
def test_a_file_that_only_its_owner_writes_is_taken(mode: int, file: Path) -> None:
    file.chmod(mode)
    assert Store(Settings(credentials_file=file)).problem is None


def test_no_file_stops_the_start_and_says_the_command_that_makes_one(tmp_path: Path) -> None:
    path = tmp_path / "no such.toml"
    with pytest.raises(Misconfigured) as caught:
        Store(Settings(credentials_file=path))
    command = f"postqueue-api credential admin --role admin --role content --file '{path}'"
    assert caught.value.detail.endswith(f"To make a credential: {command}")
    assert "No such file" in caught.value.detail


def test_a_bad_text_in_the_environment_stops_the_start_and_names_the_variable() -> None:
    with pytest.raises(Misconfigured, match=r"^POSTQUEUE_API_CREDENTIALS: There is no credential\..*credential admin"):
        text_store("# none")


def test_what_is_not_a_regular_file_stops_the_start_and_does_not_wait(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo, 0o640)
    for path in (fifo, tmp_path):
        with pytest.raises(Misconfigured, match=r"not a regular file|Is a directory"):
            Store(Settings(credentials_file=path))


def test_a_file_too_large_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credential_file, "_FILE_LIMIT_BYTES", 100)
    with pytest.raises(Misconfigured, match="larger than 100 bytes"):
        Store(Settings(credentials_file=file))


def test_the_text_of_the_setting_is_used_instead_of_the_file(file: Path) -> None:
    store = Store(Settings(credentials=GRAFANA, credentials_file=file))
    assert store.verify_password("alice", PASSWORD) is None
    assert store.verify_token(TOKEN) is not None


def test_threads_are_answered_rightly_while_the_file_changes(file: Path) -> None:
    store = Store(Settings(credentials_file=file), clock=iter(range(10**9)).__next__)
    wrong: list[object] = []

    def ask() -> None:
        for _ in range(200):
            if store.verify_token(TOKEN) is None or store.verify_token("wrong") is not None:
                wrong.append(1)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for number in range(50):
        file.with_suffix(".new").write_text(GRAFANA + f"# {number}\n")
        file.with_suffix(".new").chmod(0o640)
        file.with_suffix(".new").replace(file)
    for thread in threads:
        thread.join()
    assert not wrong
