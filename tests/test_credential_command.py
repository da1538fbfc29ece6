"""`postqueue-api credential`, run as its user would."""

import hashlib
import os
import pwd
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from postqueue_api.config import Settings
from postqueue_api.web.credential_command import credential, edited, judge_password
from postqueue_api.web.credentials import Store

PASSWORD = "correct horse battery"


@pytest.fixture(autouse=True)
def _cheap_hashes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("postqueue_api.web.credential_command._COST", 10)
    for name in [name for name in os.environ if name.startswith("POSTQUEUE_API_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "credentials.toml"


def run(*words: object, stdin: str | bytes = "") -> Result:
    return CliRunner().invoke(credential, [str(word) for word in words], input=stdin)


def tables(file: Path) -> dict[str, Any]:
    return tomllib.loads(file.read_text())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_password_from_standard_input_opens_the_store_and_is_not_repeated(file: Path) -> None:
    result = run("alice", "--role", "operator", "--role", "content", "--password-stdin", "--file", file, stdin=PASSWORD)
    assert result.exit_code == 0
    assert result.stdout == ""
    assert f"Added alice in {file}." in result.stderr
    store = Store(Settings(credentials_file=file))
    store.check_at_start()
    found = store.verify_password("alice", PASSWORD)
    assert found is not None
    assert found.roles == {"viewer", "operator", "content"}
    assert PASSWORD not in file.read_text()


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_line_end_is_not_part_of_a_password(file: Path, end: str) -> None:
    run("alice", "--role", "viewer", "--password-stdin", "--file", file, stdin=PASSWORD + end)
    assert Store(Settings(credentials_file=file)).verify_password("alice", PASSWORD)


def test_a_token_is_printed_once_alone_on_standard_output(file: Path) -> None:
    result = run("grafana", "--role", "viewer", "--token", "--file", file)
    token = result.stdout.removesuffix("\n")
    assert len(token) >= 40
    assert token.isprintable()
    assert tables(file) == {
        "grafana": {"token_sha256": hashlib.sha256(token.encode()).hexdigest(), "roles": ["viewer"]}
    }
    assert Store(Settings(credentials_file=file)).verify_token(token)
    assert run("other", "--role", "viewer", "--token", "--file", file).stdout != result.stdout


def test_without_a_terminal_a_password_is_made_and_printed_once(file: Path) -> None:
    result = run("alice", "--role", "viewer", "--file", file)
    password = result.stdout.removesuffix("\n")
    assert len(password) >= 24
    assert Store(Settings(credentials_file=file)).verify_password("alice", password)


@pytest.mark.parametrize(("typed", "made"), [(f"{PASSWORD}\n{PASSWORD}\n", False), ("\n\n", True)])
def test_on_a_terminal_the_password_is_asked_for_twice_and_not_shown(file: Path, typed: str, made: bool) -> None:
    ours, theirs = os.openpty()
    program = "from postqueue_api.web.credential_command import credential; credential()"
    command = ["setsid", "--ctty", "--wait", sys.executable, "-c", program]
    with subprocess.Popen(
        [*command, "alice", "--role", "viewer", "--file", str(file)],
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=theirs,
        text=True,
    ) as process:
        os.close(theirs)
        shown = ""
        for line in typed.splitlines(keepends=True):
            part = ""
            while ": " not in part:
                part += os.read(ours, 4096).decode()
            shown += part
            os.write(ours, line.encode())
        out, _ = process.communicate(timeout=30)
    os.close(ours)
    assert process.returncode == 0
    assert shown.index("Password (") < shown.index("Repeat for confirmation: ")
    assert PASSWORD not in shown
    assert bool(out) == made
    assert Store(Settings(credentials_file=file)).verify_password("alice", out.strip() if made else PASSWORD)


EXISTING = f"""\
# Who may manage the queue.

[grafana]   # reads the metrics
token_sha256 = "{"a" * 64}"
roles = ["viewer"]

# Alice is on call.
[alice]
# set in May
password_hash = "$2b$12$abcdefghijklmnopqrstuuabcdefghijklmnopqrstuvwxyz01234"
roles = ["viewer"]

["bob.smith@example"]
token_sha256 = "{"b" * 64}"
roles = ["admin"] # careful
"""


def test_a_name_that_is_there_is_replaced_and_all_else_stays(file: Path) -> None:
    file.write_text(EXISTING)
    result = run("alice", "--role", "admin", "--token", "--file", file)
    assert f"Replaced alice in {file}." in result.stderr
    before, after = EXISTING.splitlines(), file.read_text().splitlines()
    assert [line for line in before if line not in after] == [before[9]]
    assert set(tables(file)["alice"]) == {"token_sha256", "roles"}
    assert tables(file)["alice"]["roles"] == ["admin"]


@pytest.mark.parametrize("name", ["carol", "carol.jones@example.org", "1", "true"])
def test_a_new_name_is_added_behind_the_others(file: Path, name: str) -> None:
    file.write_text(EXISTING)
    run(name, "--role", "viewer", "--token", "--file", file)
    assert file.read_text().startswith(EXISTING + "\n[")
    assert list(tables(file)) == ["grafana", "alice", "bob.smith@example", name]


@pytest.mark.parametrize(
    "text",
    [
        'alice = {roles = ["viewer"]}\nbob = {roles = ["admin"]}\n',
        'alice.roles = ["viewer"]\nbob.roles = ["admin"]\n',
        'bob = {roles = ["admin"]}\nalice = 1',
        'bob = {roles = ["admin"]}',
        '[bob]\nroles = ["admin"]\n[alice.smith]\nroles = []\n[alice]\nroles = []\n',
        "[[alice]]\n[bob]\nroles = ['admin']",
        "",
        "\n\n# only a comment",
    ],
)
def test_unusual_toml_is_edited_without_changing_anybody_else(text: str) -> None:
    members: dict[str, object] = {"token_sha256": "c" * 64, "roles": ["viewer"]}
    after, replaced = edited(text, "alice", members)
    assert tomllib.loads(after) == {**tomllib.loads(text), "alice": members}
    assert replaced == ("alice" in text)


def test_a_file_that_is_not_toml_is_left_alone(file: Path) -> None:
    file.write_text("[alice")
    result = run("bob", "--role", "viewer", "--token", "--file", file)
    assert result.exit_code == 1
    assert "left alone" in result.stderr
    assert result.stdout == ""
    assert file.read_text() == "[alice"
    assert list(file.parent.iterdir()) == [file]


def test_a_new_file_and_directory_are_closed_to_others(tmp_path: Path) -> None:
    file = tmp_path / "new" / "credentials.toml"
    assert run("alice", "--role", "viewer", "--token", "--file", file).exit_code == 0
    assert (mode(file), mode(file.parent)) == (0o640, 0o750)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file away")
def test_roots_new_file_belongs_to_the_group_of_the_user_who_reads_it(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTQUEUE_API_USER", "nobody")
    run("alice", "--role", "viewer", "--token", "--file", file)
    assert (file.stat().st_uid, file.stat().st_gid) == (0, pwd.getpwnam("nobody").pw_gid)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives a file away")
def test_a_user_who_is_not_there_yet_is_mentioned(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTQUEUE_API_USER", "no-such-user")
    result = run("alice", "--role", "viewer", "--token", "--file", file)
    assert result.exit_code == 0
    assert "There is no user no-such-user yet" in result.stderr


def test_an_existing_file_keeps_owner_and_mode_and_its_link(file: Path, tmp_path: Path) -> None:
    file.write_text("")
    file.chmod(0o600)
    if os.geteuid() == 0:
        os.chown(file, 12, 34)
    before = file.stat()
    link = tmp_path / "link"
    link.symlink_to(file)
    run("alice", "--role", "viewer", "--token", "--file", link)
    after = file.stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
    assert link.is_symlink()
    assert list(tables(file)) == ["alice"]
    assert sorted(tmp_path.iterdir()) == [file, link]


def test_a_file_that_the_service_will_not_take_is_mentioned(file: Path) -> None:
    file.write_text("")
    file.chmod(0o644)
    assert "chmod 0640" in run("alice", "--role", "viewer", "--token", "--file", file).stderr


def test_two_at_once_lose_nobody(file: Path) -> None:
    program = "from postqueue_api.web.credential_command import credential; credential()"
    names = [f"user{number}" for number in range(6)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, name, "--role", "viewer", "--token", "--file", str(file)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for name in names
    ]
    assert [process.wait(timeout=60) for process in processes] == [0] * len(names)
    assert sorted(tables(file)) == names


@pytest.mark.parametrize("password", [PASSWORD, "gK3x-pQ9z-Lm2w", "pässwörter sind schön", "x1y2z3" * 12])
def test_a_long_and_varied_password_is_taken(password: str) -> None:
    judge_password("alice", password)


@pytest.mark.parametrize(
    ("password", "says"),
    [
        ("", "shorter than 12"),
        ("elevenchars", "shorter than 12"),
        ("x1y2z3" * 12 + "!", "longer than 72 bytes"),
        ("é" * 36 + "x", "longer than 72 bytes"),
        ("correct\0horse battery", "control character"),
        ("correct horse\nbattery", "control character"),
        ("aaaaaaaaaaaaaaaa", "little more"),
        ("alicealicealice", "little more"),
        ("Administrator1", "little more"),
        ("postqueue-api-1", "little more"),
        ("PasswordPassword", "little more"),
    ],
)
def test_any_other_password_is_refused_before_anything_is_written(file: Path, password: str, says: str) -> None:
    result = run("alice", "--role", "viewer", "--password-stdin", "--file", file, stdin=password)
    assert result.exit_code == 1
    assert says in result.stderr
    assert not file.exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["alice"], "--role"),
        (["alice", "--role", "root"], "'root' is not one of"),
        (["a:b", "--role", "viewer"], "1 to 64"),
        (["a\nb", "--role", "viewer"], "1 to 64"),
        (["a" * 65, "--role", "viewer"], "1 to 64"),
        (["", "--role", "viewer"], "1 to 64"),
        (["alice", "--role", "viewer", "--token", "--password-stdin"], "exclude each other"),
    ],
)
def test_a_call_that_makes_no_sense_is_refused_with_status_2(file: Path, words: list[str], says: str) -> None:
    result = run(*words, "--file", file)
    assert result.exit_code == 2
    assert says in result.stderr
    assert not file.exists()


def test_a_password_that_is_not_utf_8_is_refused(file: Path) -> None:
    result = run("alice", "--role", "viewer", "--password-stdin", "--file", file, stdin=b"\xff" * 20)
    assert result.exit_code == 1
    assert "not UTF-8" in result.stderr


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    result = run("alice", "--role", "viewer", "--token", "--file", tmp_path / "a" / "b" / "c.toml")
    assert result.exit_code == 1
    assert f"{tmp_path}/a/b: No such file or directory" in result.stderr
    assert result.stdout == ""


def test_the_file_of_the_settings_is_used_and_a_text_that_wins_over_it_is_mentioned(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTQUEUE_API_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("POSTQUEUE_API_CREDENTIALS", "some text")
    result = run("alice", "--role", "viewer", "--token")
    assert list(tables(file)) == ["alice"]
    assert "reads POSTQUEUE_API_CREDENTIALS instead" in result.stderr
