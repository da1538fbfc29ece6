"""main.cf, master.cf and the transport table of the sandbox: a relay that reaches nothing but its own sinks."""

from collections.abc import Mapping
from pathlib import Path

from postqueue_api.sandbox.sink import LOOPBACK
from postqueue_api.sandbox.sites import HOME, UNKNOWN

# A folder of its own, because `postfix check` warns of everything that lies beside main.cf.
FOLDER = "postfix"
SPOOL = "spool"
HELD_SENDER = "payroll@example.com"

_MAIN_CF = {
    "compatibility_level": "3.6",
    "myhostname": "relay.example.com",
    "inet_interfaces": LOOPBACK,
    "inet_protocols": "ipv4",
    "mynetworks": "127.0.0.0/8",
    "mydestination": "",
    "alias_maps": "",
    "alias_database": "",
    "local_recipient_maps": "",
    "relay_domains": ", ".join((*HOME, "test", "example", "invalid")),
    "smtpd_relay_restrictions": "permit_mynetworks, reject",
    "smtpd_sender_restrictions": f"check_sender_access inline:{{ {{ {HELD_SENDER} = HOLD waits for approval }} }}",
    "smtpd_peername_lookup": "no",  # no DNS for who sends
    "smtputf8_enable": "yes",
    # What is not in the transport table stays here: no mail and no DNS query leaves the machine.
    "default_transport": "retry:4.4.4 The sandbox has no route to this destination",
    "relay_transport": "$default_transport",
    "local_transport": "$default_transport",
    "notify_classes": "",
    # Deferred mail rests until it is told to move.
    "minimal_backoff_time": "1h",
    "maximal_backoff_time": "4h",
    "smtp_connect_timeout": "5s",
    "smtp_connection_cache_on_demand": "no",
}

# service, type, private, unprivileged, chroot, wakeup, processes, command
_MASTER_CF = """\
pickup    unix  n - n 60   1 pickup
cleanup   unix  n - n -    0 cleanup
qmgr      unix  n - n 300  1 qmgr
rewrite   unix  - - n -    - trivial-rewrite
bounce    unix  - - n -    0 bounce
defer     unix  - - n -    0 bounce
trace     unix  - - n -    0 bounce
verify    unix  - - n -    1 verify
flush     unix  n - n 1000? 0 flush
proxymap  unix  - - n -    - proxymap
proxywrite unix - - n -    1 proxymap
smtp      unix  - - n -    - smtp
relay     unix  - - n -    - smtp
nodns     unix  - - y -    - smtp -o soft_bounce=yes
showq     unix  n - n -    - showq
error     unix  - - n -    - error
retry     unix  - - n -    - error
discard   unix  - - n -    - discard
anvil     unix  - - n -    1 anvil
scache    unix  - - n -    1 scache
postlog   unix-dgram n - n - 1 postlogd
"""

# The chroot of the service `nodns` is the spool, so this is its resolver: a loopback address where nobody answers.
# The lookup really fails, at once, and no query leaves the machine.
_RESOLV_CONF = "nameserver 127.99.99.53\noptions timeout:1 attempts:1\n"


def _head(directory: Path) -> str:
    """How every main.cf of ours begins. Without its own queue_directory, `postfix stop` would stop the real Postfix."""
    return f"# A sandbox of postqueue-api, removed when it ends.\nqueue_directory = {directory}/{SPOOL}\n"


def is_sandbox(directory: Path) -> bool:
    """Whether this directory was made by us, for this very place: only then may it be stopped and removed."""
    try:
        return (directory / FOLDER / "main.cf").read_text(errors="replace").startswith(_head(directory))
    except OSError:
        return False


def mark(directory: Path) -> None:
    """Mark the directory as a sandbox, so that it is removed whatever happens next."""
    _replace(directory / FOLDER / "main.cf", _head(directory))


def write(directory: Path, smtp_port: int, ports: Mapping[str, int], settings: Mapping[str, str]) -> None:
    """Write all files of the instance into `directory`; `settings` are main.cf parameters that go before ours."""
    places = {
        "data_directory": f"{directory}/data",
        "maillog_file": f"{directory}/mail.log",
        "maillog_file_prefixes": f"{directory}",
        "transport_maps": f"texthash:{directory}/{FOLDER}/transport",
    }
    parameters = {**_MAIN_CF, **places, **settings}
    main_cf = _head(directory) + "".join(f"{name} = {value}\n" for name, value in parameters.items())
    transport = "".join(f"{site} smtp:[{LOOPBACK}]:{port}\n" for site, port in ports.items()) + f"{UNKNOWN} nodns:\n"
    texts = {
        f"{FOLDER}/main.cf": main_cf,
        f"{FOLDER}/master.cf": f"{LOOPBACK}:{smtp_port} inet n - n - - smtpd\n" + _MASTER_CF,
        f"{FOLDER}/transport": transport,
        f"{SPOOL}/etc/resolv.conf": _RESOLV_CONF,
    }
    for name, text in texts.items():
        path = directory / name
        _replace(path, text)


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(text)
    part.chmod(0o644)
    part.rename(path)
