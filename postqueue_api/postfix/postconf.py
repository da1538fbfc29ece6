"""postconf(1): what this Postfix instance is."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from postqueue_api.errors import Misconfigured, NotInstalled, UnexpectedOutput
from postqueue_api.postfix.complaint import complaint
from postqueue_api.postfix.process import ENVIRONMENT, Postfix, run

OLDEST = (3, 5)

_PARAMETERS = (
    "mail_version",
    "queue_directory",
    "mail_owner",
    "myhostname",
    "multi_instance_name",
    "enable_long_queue_ids",
    "hash_queue_names",
)


@dataclass(frozen=True)
class Instance:
    """The parameters that we need, with Postfix's own names."""

    mail_version: str
    queue_directory: Path
    mail_owner: str
    myhostname: str
    multi_instance_name: str
    enable_long_queue_ids: bool
    hash_queue_names: frozenset[str]


def find_commands(command_directory: Path | None, config_directory: Path | None, timeout_seconds: float) -> Postfix:
    """Find the directory of Postfix's commands, asking postconf when it is not given.

    Runs:     postconf -h command_directory
    Raises:   NotInstalled, Misconfigured, CommandFailed, CommandTimeout, UnexpectedOutput
    Source:   postconf(5), command_directory
    """
    if command_directory is None:
        found = shutil.which("postconf", path=ENVIRONMENT["PATH"])
        if found is None:
            raise NotInstalled(
                "postconf is not in /usr/sbin or /usr/bin: install Postfix, or set POSTQUEUE_API_COMMAND_DIRECTORY."
            )
        asked = Postfix(Path(found).parent, config_directory, timeout_seconds)
        command_directory = Path(_value(asked, "command_directory"))
        if not command_directory.is_absolute():
            raise UnexpectedOutput("postconf did not tell command_directory: set POSTQUEUE_API_COMMAND_DIRECTORY.")
    return Postfix(command_directory, config_directory, timeout_seconds)


def read_instance(postfix: Postfix) -> Instance:
    """Ask what this instance is.

    Runs:     postconf -x mail_version queue_directory ...
    Raises:   NotInstalled, Misconfigured, CommandFailed, CommandTimeout, UnexpectedOutput
    Source:   postconf(1), option -x (expand $name); exit status 0 and `name = value` lines (Postfix 3.7.11)
    """
    finished = run(postfix.argv("postconf", "-x", *_PARAMETERS), postfix.timeout_seconds)
    if finished.returncode != 0:
        raise complaint(finished)
    values = dict(
        line.split(" =", 1) for line in finished.stdout.decode("utf-8", "replace").split("\n") if " =" in line
    )
    missing = [name for name in _PARAMETERS if name not in values]
    if missing:
        raise UnexpectedOutput(f"postconf did not tell {missing[0]}.")
    value = {name: text.strip() for name, text in values.items()}
    return Instance(
        mail_version=value["mail_version"],
        queue_directory=Path(value["queue_directory"]),
        mail_owner=value["mail_owner"],
        myhostname=value["myhostname"],
        multi_instance_name=value["multi_instance_name"],
        enable_long_queue_ids=value["enable_long_queue_ids"] == "yes",
        hash_queue_names=frozenset(value["hash_queue_names"].replace(",", " ").split()),
    )


def refuse_old(instance: Instance) -> None:
    """Go on only with a Postfix whose tools say what we need: 3.5 and later list forced expiry, and can force it.

    Raises:   Misconfigured
    Source:   Postfix's RELEASE_NOTES-3.5; mail_version is 3.7.11, or 3.12-20260101 of a development version
    """
    found = re.match(r"([0-9]+)\.([0-9]+)", instance.mail_version, re.ASCII)
    if found is not None and (int(found[1]), int(found[2])) < OLDEST:
        raise Misconfigured(
            f"Postfix {found[0]} is too old: install {OLDEST[0]}.{OLDEST[1]} or later,"
            " or name its commands in POSTQUEUE_API_COMMAND_DIRECTORY."
        )


def _value(postfix: Postfix, parameter: str) -> str:
    finished = run(postfix.argv("postconf", "-h", parameter), postfix.timeout_seconds)
    if finished.returncode != 0:
        raise complaint(finished)
    return finished.stdout.decode("utf-8", "replace").strip()
