"""deploy/nginx.conf as it stands in a real nginx, but for the names and ports of this machine."""

import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from postqueue_api.sandbox import processes
from postqueue_api.sandbox.sink import LOOPBACK, bound_socket
from tests.certificates import Pair

FILE = Path(__file__).parent.parent / "deploy" / "nginx.conf"
NAME = "mail-queue.example.org"


@contextmanager
def nginx(directory: Path, upstream: int, server: Pair, clients_ca: Path) -> Iterator[int]:
    """nginx in front of a port of loopback; gives the port on which it ends TLS. What it writes is in the directory."""
    with bound_socket() as first, bound_socket() as second:
        tls, plain = first.getsockname()[1], second.getsockname()[1]
    text = FILE.read_text()
    for ours, here in (
        ("listen 443", f"listen {LOOPBACK}:{tls}"),
        ("listen 80", f"listen {LOOPBACK}:{plain}"),
        ("http://127.0.0.1:8025", f"http://{LOOPBACK}:{upstream}"),
        ("/etc/ssl/certs/mail-queue.pem", str(server.certificate)),
        ("/etc/ssl/private/mail-queue.key", str(server.key)),
        ("/etc/ssl/certs/mail-queue-clients.pem", str(clients_ca)),
    ):
        assert text.count(f"{ours};") + text.count(f"{ours} ssl;") == (2 if "8025" in ours else 1), ours
        text = text.replace(ours, here)
    (directory / "site.conf").write_text(text)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {directory}/{kind};" for kind in kinds)
    main = directory / "nginx.conf"
    main.write_text(  # gzip: as in Debian's own nginx.conf, which includes ours
        f"daemon off; master_process off; pid {directory}/pid; events {{}}"
        f" http {{ access_log off; gzip on; {temporary} include {directory}/site.conf; }}"
    )
    process = subprocess.Popen(("/usr/sbin/nginx", "-e", directory / "error.log", "-c", main))

    def listens() -> bool:
        assert process.poll() is None, (directory / "error.log").read_text()
        with suppress(OSError):
            socket.create_connection((LOOPBACK, tls), 5).close()
            return True
        return False

    try:
        processes.wait_until(listens, 10)
        yield tls
    finally:
        process.terminate()
        process.wait(10)


def trusting(ca: Path, client: Pair | None = None) -> ssl.SSLContext:
    """Believe a CA, and show a certificate."""
    context = ssl.create_default_context(cafile=ca)
    if client is not None:
        context.load_cert_chain(client.certificate, client.key)
    return context
