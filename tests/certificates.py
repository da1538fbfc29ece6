"""Certificates for a test, made by openssl: a CA, and what it signs."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(*words: str) -> None:
    done = subprocess.run(("openssl", *words), capture_output=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr.decode()


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    certificate: Path
    key: Path


class Authority:
    """A CA in a directory that everybody can read."""

    def __init__(self, directory: Path, name: str = "ca") -> None:
        self._directory = directory
        self.pair = Pair(directory / f"{name}.pem", directory / f"{name}.key")
        subject = ("-x509", "-subj", f"/CN={name}", "-days", "2")
        _openssl("req", *_KEY, *subject, "-keyout", str(self.pair.key), "-out", str(self.pair.certificate))

    @property
    def certificate(self) -> Path:
        return self.pair.certificate

    def sign(self, name: str, subject: str, *, alternative: str = "DNS:localhost", days: int = 2) -> Pair:
        """A certificate for a subject as openssl writes it (/O=Example/CN=monitor); days below zero: expired."""
        made = Pair(self._directory / f"{name}.pem", self._directory / f"{name}.key")
        request, extensions = self._directory / f"{name}.csr", self._directory / f"{name}.ext"
        extensions.write_text(f"basicConstraints=CA:FALSE\nsubjectAltName={alternative}\n")
        _openssl("req", "-utf8", *_KEY, "-subj", subject, "-keyout", str(made.key), "-out", str(request))
        by = ("-CA", str(self.pair.certificate), "-CAkey", str(self.pair.key), "-CAcreateserial", "-days", str(days))
        out = ("-extfile", str(extensions), "-out", str(made.certificate))
        _openssl("x509", "-req", "-in", str(request), *by, *out)
        made.key.chmod(0o644)
        return made
