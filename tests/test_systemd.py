"""deploy/systemd: systemd finds nothing to say about the units, and what they promise is what it scores."""

import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from postqueue_api.drain_at_stop import MAIL_IS_LEFT

DIRECTORY = Path(__file__).parent.parent / "deploy" / "systemd"
UNITS = ("postqueue-api-agent", "postqueue-api-web")
# What `systemd-analyze security` gives at most, of 10. Root is what the agent loses most for.
EXPOSURE = {"postqueue-api-agent": 2.5, "postqueue-api-web": 1.5}


def systemd(*arguments: str | Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(arguments, capture_output=True, text=True, check=False)


def installed(directory: Path, change: Mapping[str, str] | None = None) -> list[Path]:
    """The units as they are, but that their program exists here: verify asks for it."""
    for unit in UNITS:
        text = (DIRECTORY / f"{unit}.service").read_text()
        for old, new in {"/opt/postqueue-api/bin/postqueue-api": "/bin/true", **(change or {})}.items():
            text = text.replace(old, new)
        (directory / f"{unit}.service").write_text(text)
    return [directory / f"{unit}.service" for unit in UNITS]


def verify(units: list[Path]) -> str:
    run = systemd("systemd-analyze", "verify", "--man=no", *units)
    return run.stdout + run.stderr


def test_verify_is_silent(tmp_path: Path) -> None:
    assert verify(installed(tmp_path)) == ""


@pytest.mark.parametrize(
    ("line", "broken"),
    [
        ("KillMode=mixed", "KillMod=mixed"),
        ("Type=notify", "Type=notified"),
        ("NotifyAccess=all", "NotifyAccess=every"),
        ("SuccessExitStatus=75", "SuccessExitStatus=MAIL_IS_LEFT"),
        ("ExecReload=/bin/kill -HUP", "ExecReload=kill-HUP"),
        ("SystemCallFilter=@system-service", "SystemCallFilter=@no-such-group"),
        ("ReadWritePaths=/var/spool/postfix", "ReadWritePaths=var/spool/postfix"),
    ],
)
def test_verify_speaks_of_a_broken_line(tmp_path: Path, line: str, broken: str) -> None:
    assert verify(installed(tmp_path, {line: broken})) != ""


@pytest.mark.parametrize("unit", UNITS)
def test_exposure_is_low(unit: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = systemd("systemd-analyze", "security", "--offline=yes", "--no-pager", DIRECTORY / f"{unit}.service")
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", run.stdout)
    assert found is not None, run
    with capsys.disabled():
        print(f" [systemd-analyze security {unit}: {found[1]}] ", end="")  # noqa: T201
    assert float(found[1]) <= EXPOSURE[unit]


def test_web_has_no_rights_and_the_agent_those_of_the_container() -> None:
    web, agent = ((DIRECTORY / f"{unit}.service").read_text() for unit in reversed(UNITS))
    assert re.search(r"^CapabilityBoundingSet=$", web, re.MULTILINE)
    assert re.search(r"^User=postqueue-api$", web, re.MULTILINE)
    found = re.search(r"^CapabilityBoundingSet=(.+)$", agent, re.MULTILINE)
    assert found is not None
    assert found[1].replace("CAP_", "") == "CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID"
    assert all("NoNewPrivileges=yes" in text and "ProtectSystem=strict" in text for text in (web, agent))


def lines_of(unit: str) -> dict[str, str]:
    """The settings of a unit that stand there once."""
    text = (DIRECTORY / f"{unit}.service").read_text()
    return dict(re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE))


def test_a_stop_leaves_time_for_a_drain_and_mail_that_is_left_is_no_failure() -> None:
    agent = lines_of("postqueue-api-agent")
    assert agent["KillMode"] == "mixed"
    assert int(agent["TimeoutStopSec"]) >= 90 + 30
    assert int(agent["SuccessExitStatus"]) == MAIL_IS_LEFT
    # tests/live/test_serve.py sees that the one that tells is not the first process then.
    assert (agent["Type"], agent["NotifyAccess"]) == ("notify", "all")


def test_a_reload_of_web_is_the_signal_that_reads_the_certificate_again() -> None:
    web = lines_of("postqueue-api-web")
    assert web["ExecReload"] == "/bin/kill -HUP $MAINPID"
    assert web["KillMode"] == "mixed"


def test_the_snippets_make_the_user_and_its_directories(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    users = systemd("systemd-sysusers", f"--root={tmp_path}", DIRECTORY / "postqueue-api.sysusers")
    assert users.returncode == 0, users.stderr
    (line,) = [line for line in (tmp_path / "etc/passwd").read_text().splitlines() if "postqueue-api" in line]
    name, _, uid, gid, _, home, shell = line.split(":")
    assert (name, home, shell) == ("postqueue-api", "/", "/usr/sbin/nologin")
    made = systemd("systemd-tmpfiles", "--create", f"--root={tmp_path}", DIRECTORY / "postqueue-api.tmpfiles")
    assert made.returncode == 0, made.stderr
    for path, mode in (("run", 0o2750), ("var/lib", 0o2750), ("etc", 0o750)):
        found = (tmp_path / path / "postqueue-api").stat()
        assert (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (mode, 0, int(gid))
    assert int(uid) < 1000
