"""Every setting, one row each: name, type, default, and a sentence that README repeats.

A setting `foo_seconds` is the environment variable POSTQUEUE_API_FOO_SECONDS. Units stand at the end of the
name. A variable that is not in the table, or a value that cannot be read, stops the start.
"""

import dataclasses
import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from postqueue_api.errors import Misconfigured

PREFIX = "POSTQUEUE_API_"

IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Address:
    """A host and a TCP port, written `host:port`, or `[host]:port` for IPv6."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can connect; a name other than localhost counts as reachable from outside."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def _address(text: str) -> Address:
    found = re.fullmatch(r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<host>[^\[\]:\s]+)):(?P<port>[0-9]{1,5})", text, re.ASCII)
    if found is None or not 0 < int(found["port"]) < 65536 or not (found["host"] or _is_ipv6(found["v6"])):
        raise ValueError("host:port, for example 127.0.0.1:8025 or [::1]:8025")
    return Address(found["v6"] or found["host"], int(found["port"]))


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def _directory(text: str) -> Path:
    if not text.startswith("/") or "\0" in text:
        raise ValueError("an absolute path")
    return Path(text)


def _text(text: str) -> str:
    if not text:
        raise ValueError("a text that is not empty")
    return text


def _header(text: str) -> str:
    if re.fullmatch(r"[A-Za-z0-9-]{1,64}", text, re.ASCII) is None:
        raise ValueError("the name of a header: letters, digits and -")
    return text


def _networks(text: str) -> tuple[IPNetwork, ...]:
    try:
        return tuple(ipaddress.ip_network(each.strip()) for each in text.split(","))
    except ValueError:
        raise ValueError("addresses and networks, comma separated, for example 10.0.0.5,10.1.0.0/16") from None


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(" or ".join(words))
        return text

    return parse


def _switch(text: str) -> bool:
    try:
        return {"yes": True, "no": False}[text]
    except KeyError:
        raise ValueError("yes or no") from None


def _number(least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if re.fullmatch(r"[0-9]{1,15}", text, re.ASCII) is None or not least <= int(text) <= most:
            raise ValueError(f"a whole number from {least} to {most}")
        return int(text)

    return parse


def _setting(default: Any, parse: Callable[[str], Any], sentence: str) -> Any:
    return dataclasses.field(default=default, metadata={"parse": parse, "sentence": sentence})


_GIBIBYTE = 1 << 30


@dataclass(frozen=True)
class Settings:
    """What the environment says. Each field is one setting; see the module's docstring for its variable."""

    # fmt: off
    bind: Address = _setting(Address("127.0.0.1", 8025), _address,
        "Where web listens. Anything but loopback needs TLS, or a proxy that ends it.")
    tls_ended_by_proxy: bool = _setting(False, _switch,
        "yes: a proxy in front ends TLS, so web may listen in plain HTTP beyond loopback.")
    tls_certificate_file: Path | None = _setting(None, _directory,
        "The certificate in PEM, and those between it and the CA: web ends TLS itself. Read again on SIGHUP.")
    tls_key_file: Path | None = _setting(None, _directory,
        "Its key in PEM, not encrypted, readable for the user that web becomes.")
    tls_client_ca_file: Path | None = _setting(None, _directory,
        "The CA certificates in PEM that sign clients' certificates.")
    tls_client_certificates: str = _setting("off", _one_of("off", "optional", "required"),
        "Whether clients show a certificate: off, optional or required. One that is shown must be good in any case.")
    trusted_proxies: tuple[IPNetwork, ...] | None = _setting(None, _networks,
        "Addresses and networks of the proxies in front, comma separated. Only from them X-Forwarded-For counts.")
    proxy_hops: int = _setting(1, _number(1, 16),
        "How many proxies stand in front; the client is that entry of X-Forwarded-For, counted from the right.")
    client_certificate_header: str | None = _setting(None, _header,
        "The header in which they name the subject of a verified client certificate.")
    requests_per_minute: int = _setting(12_000, _number(0, 10_000_000),
        "How many requests one principal may make in a minute; 0: any number.")
    requests_per_minute_per_address: int = _setting(60_000, _number(0, 10_000_000),
        "How many requests may come from one address (IPv6: one /64) in a minute; 0: any number.")
    lockout_refusals: int = _setting(20, _number(0, 1_000_000),
        "After how many refused credentials within LOCKOUT_SECONDS an address is not listened to any more; 0: never.")
    lockout_seconds: int = _setting(60, _number(1, 86400),
        "How long refusals of an address are counted, from the first; until then it is locked out.")
    concurrent_streams: int = _setting(8, _number(1, 1024),
        "How many answers may be sent as a stream (NDJSON, CSV) at once.")
    config_directory: Path | None = _setting(None, _directory,
        "The Postfix instance, as `-c` takes it. Left out: Postfix's own default.")
    command_directory: Path | None = _setting(None, _directory,
        "Where postqueue, postsuper, postcat and postconf are. Left out: what `postconf -h command_directory` says.")
    state_directory: Path = _setting(Path("/var/lib/postqueue-api"), _directory,
        "Where snapshots and the journal are kept.")
    agent_socket: Path = _setting(Path("/run/postqueue-api/agent.sock"), _directory,
        "The unix socket between web and agent.")
    user: str = _setting("postqueue-api", _text,
        "The user that web becomes when started as root, and the only one besides root whom the agent answers.")
    credentials_file: Path = _setting(Path("/etc/postqueue-api/credentials.toml"), _directory,
        "The file of credentials; read again when it changes.")
    credentials: str | None = _setting(None, _text,
        "The text of such a file, used instead of the file: for a secret that a container gets as a variable.")
    snapshot_max_age_seconds: int = _setting(5, _number(0, 86400),
        "How old a listing may be when the request does not say (Cache-Control: max-age=N).")
    snapshot_wait_seconds: int = _setting(10, _number(0, 3600),
        "How long a request waits for a fresh listing before it is given the last one, with its age.")
    snapshot_keep_seconds: int = _setting(600, _number(10, 86400),
        "How long a listing that somebody pages through is kept after its last page.")
    snapshot_keep_limit: int = _setting(8, _number(1, 100),
        "How many listings are kept for that at the most.")
    snapshot_keep_bytes: int = _setting(4 << 30, _number(1 << 20, 1 << 40),
        "How many bytes they may take together; a million messages take about one gibibyte.")
    sample_interval_seconds: int = _setting(60, _number(0, 86400),
        "How often the length of the queue is written down, for the last 1440 times; 0: never.")
    command_timeout_seconds: int = _setting(60, _number(1, 3600),
        "How long one Postfix command may run before it is ended.")
    listing_timeout_seconds: int = _setting(300, _number(1, 3600),
        "How long `postqueue -j` may run: a million messages take about a minute.")
    resume_operations: bool = _setting(True, _switch,
        "What becomes of operations that a stop of the agent interrupted: yes, they go on; no, the rest is skipped.")
    operation_limit_messages: int = _setting(1_000_000, _number(1, 100_000_000),
        "How many messages one operation may be about.")
    trash_retention_seconds: int = _setting(86400, _number(0, 366 * 86400),
        "How long a copy of a deleted message is kept; 0: deletes keep no copy.")
    trash_limit_bytes: int = _setting(_GIBIBYTE, _number(1, 1 << 50),
        "How many bytes of copies are kept; the oldest go first.")
    trash_limit_messages: int = _setting(1_000_000, _number(1, 1_000_000_000),
        "How many copies are kept; the oldest go first.")
    import_limit_bytes: int = _setting(_GIBIBYTE, _number(1024, 1 << 50),
        "The largest tar of messages from another Postfix; the trash needs room for it too.")
    lock_wait_seconds: int = _setting(10, _number(0, 600),
        "How long a change waits for a message that is being delivered at that moment.")
    drain_seconds: int = _setting(0, _number(0, 86400),
        "How long a stop waits for the queue to become empty, after a flush; 0: it does not. docs/drain.md.")
    content_limit_bytes: int = _setting(16 << 20, _number(1024, _GIBIBYTE),
        "How much of a message is read to decode its text; of a longer one the rest is marked as left out.")
    body_limit_bytes: int = _setting(32 << 20, _number(1024, _GIBIBYTE),
        "The largest request body.")
    web_workers: int = _setting(2, _number(1, 64),
        "How many processes answer HTTP.")
    web_threads: int = _setting(16, _number(2, 512),
        "How many requests each of them answers at once.")
    # fmt: on


def variable(field_name: str) -> str:
    """The environment variable of a setting: bind -> POSTQUEUE_API_BIND."""
    return PREFIX + field_name.upper()


def load(environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings.

    Raises:   Misconfigured, naming the variable and what it accepts; a value that may be secret is not repeated
    """
    fields = {variable(field.name): field for field in dataclasses.fields(Settings)}
    unknown = sorted(name for name in environ if name.startswith(PREFIX) and name not in fields)
    if unknown:
        raise Misconfigured(f"{unknown[0]} is not a setting. README lists them all; is it misspelt?")
    values: dict[str, Any] = {}
    for name, field in fields.items():
        if name in environ:
            try:
                values[field.name] = field.metadata["parse"](environ[name])
            except ValueError as error:
                raise Misconfigured(f"{name} must be {error}.") from None
    return Settings(**values)
