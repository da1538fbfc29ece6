"""`postqueue-api credential`: add or replace one principal in the credentials file.

The file is edited as a person would: other principals, comments and order stay. It is replaced by rename, so the
service reads the old file or the new one, never half of one.
"""

import fcntl
import hashlib
import os
import pwd
import secrets
import sys
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

import bcrypt
import click
import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import Table

from postqueue_api import config
from postqueue_api.errors import Error, Misconfigured
from postqueue_api.web import credential_file
from postqueue_api.web.credentials import PASSWORD_LIMIT_BYTES, ROLES

LEAST_PASSWORD_LENGTH = 12

_COST = 12
_READ_LIMIT = 4096


@click.command()
@click.argument("name")
@click.option("--role", "roles", multiple=True, required=True, type=click.Choice(ROLES), help="May be given again.")
@click.option("--password-stdin", is_flag=True, help="Take the password from standard input.")
@click.option("--token", is_flag=True, help="Make a random token for Authorization: Bearer.")
@click.option("--file", type=click.Path(path_type=Path), help="The credentials file, if not the one of the settings.")
def credential(name: str, roles: Sequence[str], password_stdin: bool, token: bool, file: Path | None) -> None:
    """Add NAME to the credentials file, or give NAME another secret and other roles.

    On a terminal the password is asked for; elsewhere, or when none is typed, one is made. A secret made here is
    printed once, alone on standard output. The service reads the file again by itself.
    """
    if password_stdin and token:
        raise click.UsageError("--password-stdin and --token exclude each other.")
    if credential_file.NAME.fullmatch(name) is None:
        raise click.BadParameter("1 to 64 letters, digits and . _ @ -", param_hint="NAME")
    try:
        settings = config.load()
        path = (file or settings.credentials_file).resolve()
        secret, made = _secret(name, password_stdin, token)
        replaced = _save(path, name, _members(secret, token, roles), settings.user)
    except Error as error:
        raise click.ClickException(error.detail) from None
    except OSError as error:
        raise click.ClickException(f"{error.filename or file}: {error.strerror}.") from None
    click.echo(f"{'Replaced' if replaced else 'Added'} {name} in {path}.", err=True)
    if settings.credentials is not None:
        click.echo(f"The service reads {config.variable('credentials')} instead of a file.", err=True)
    if made:
        click.echo(secret)


def judge_password(name: str, password: str) -> None:
    """Refuse a password that is short, known, simple, or more than bcrypt looks at.

    Raises:   Misconfigured, without the password
    """
    if len(password) < LEAST_PASSWORD_LENGTH:
        raise Misconfigured(f"The password is shorter than {LEAST_PASSWORD_LENGTH} characters.")
    if len(password.encode("utf-8", "surrogatepass")) > PASSWORD_LIMIT_BYTES:
        raise Misconfigured(f"The password is longer than {PASSWORD_LIMIT_BYTES} bytes, all that bcrypt looks at.")
    if not password.isprintable():
        raise Misconfigured("The password has a control character or a line end in it.")
    plain = password.casefold()
    words = (name.casefold(), *credential_file.WELL_KNOWN, "administrator", "postqueue-api", "postfix")
    for word in sorted(words, key=len, reverse=True):
        plain = plain.replace(word, "")
    if len(set(plain)) < 5:
        raise Misconfigured("The password is little more than a well-known word or one character. Choose another.")


def _secret(name: str, password_stdin: bool, token: bool) -> tuple[str, bool]:
    """The secret, and whether it was made here."""
    password = ""
    if password_stdin:
        try:
            password = sys.stdin.buffer.read(_READ_LIMIT).decode().removesuffix("\n").removesuffix("\r")
        except UnicodeDecodeError:
            raise Misconfigured("The password is not UTF-8.") from None
    elif not token and sys.stdin.isatty():
        password = click.prompt(
            "Password (empty: one is made)",
            default="",
            show_default=False,
            hide_input=True,
            confirmation_prompt=True,
            err=True,
        )
    if password or password_stdin:
        judge_password(name, password)
        return password, False
    return secrets.token_urlsafe(32), True


def _members(secret: str, token: bool, roles: Sequence[str]) -> dict[str, object]:
    if token:
        proof = {"token_sha256": hashlib.sha256(secret.encode()).hexdigest()}
    else:
        proof = {"password_hash": bcrypt.hashpw(secret.encode(), bcrypt.gensalt(_COST)).decode()}
    return {**proof, "roles": list(dict.fromkeys(roles))}


def _save(path: Path, name: str, members: dict[str, object], user: str) -> bool:
    """Write the file anew; True if the name was in it before."""
    group = _group_of(user)
    if not path.parent.is_dir():
        path.parent.mkdir(mode=0o750)
        os.chown(path.parent, -1, group)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Two of these commands at once: the second waits, and edits what the first has written.
        fcntl.flock(directory, fcntl.LOCK_EX)
        try:
            before: str | None = path.read_text("utf-8")
        except FileNotFoundError:
            before = None
        after, replaced = edited(before or "", name, members)
        _replace(path, after, group)
        os.fsync(directory)
    finally:
        os.close(directory)
    _warn_if_unusable(path)
    return replaced


def edited(text: str, name: str, members: dict[str, object]) -> tuple[str, bool]:
    """The text with that table in it, all else as it was; and whether the table was there.

    Raises:   Misconfigured when the text is not TOML, or cannot be edited without changing something else
    """
    try:
        expected = tomllib.loads(text)
        document = tomlkit.parse(text)
    except (tomllib.TOMLDecodeError, TOMLKitError) as error:
        raise Misconfigured(f"The credentials file is not TOML, so it was left alone: {error}.") from None
    replaced = name in expected
    table = document.get(name)
    if not isinstance(table, Table):
        document[name] = table = tomlkit.table()
    for key in list(table):
        del table[key]
    table.update(members)
    after = tomlkit.dumps(document)
    if tomllib.loads(after) != {**expected, name: members}:
        raise Misconfigured(f"The credentials file cannot be edited safely: write [{name}] by hand.")
    return after, replaced


def _replace(path: Path, text: str, group: int) -> None:
    """Write, sync, rename. An existing file keeps owner, group and mode; a new one is 0640 and of that group."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(handle, "w", encoding="utf-8", newline="") as file:  # noqa: PTH123
            file.write(text)
            try:
                status = path.stat()
                os.fchown(handle, status.st_uid, status.st_gid)
                os.fchmod(handle, status.st_mode & 0o7777)
            except FileNotFoundError:
                os.fchown(handle, -1, group)
                os.fchmod(handle, 0o640)
            file.flush()
            os.fsync(handle)
        Path(temporary).replace(path)
    except BaseException:  # an interrupt too: no half file is left, and it goes on
        Path(temporary).unlink()
        raise


def _group_of(user: str) -> int:
    """The group that must read a new file; -1, which is our own, unless we are root and the user exists."""
    if os.geteuid() != 0:
        return -1
    try:
        return pwd.getpwnam(user).pw_gid
    except KeyError:
        click.echo(f"There is no user {user} yet: give the file to its group later, so that web can read it.", err=True)
        return -1


def _warn_if_unusable(path: Path) -> None:
    try:
        credential_file.parse(credential_file.read(path)[0])
    except Misconfigured as error:
        click.echo(f"The service will not take this file: {error.detail}", err=True)
