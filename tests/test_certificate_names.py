"""Subjects and alternative names: what is the same, what is not, and what is none."""

import pytest

from postqueue_api.errors import Misconfigured
from postqueue_api.web.certificate_names import of_certificate, parse
from postqueue_api.web.credential_file import parse as parse_credentials

SHOWN = {
    "subject": ((("organizationName", "Söhne, Inc."),), (("commonName", "monitor"), ("userId", "7"))),
    "subjectAltName": (("DNS", "Gate.Example.com"), ("email", "ops@example.com"), ("IP Address", "192.0.2.1")),
}


@pytest.mark.parametrize(
    "text",
    [
        r"CN=monitor+UID=7,O=Söhne\, Inc.",
        r"uid=7+cn=monitor,o=S\C3\B6hne\2C Inc.",
        r"commonName=monitor + UID=7 , organizationName=Söhne\, Inc.",
        "DNS:gate.example.com",
        "email:ops@example.com",
    ],
)
def test_a_name_of_the_certificate_is_found_however_it_is_written(text: str) -> None:
    assert parse(text) in of_certificate(SHOWN)


@pytest.mark.parametrize(
    "text",
    [
        r"O=Söhne\, Inc.,CN=monitor+UID=7",
        r"CN=monitor,O=Söhne\, Inc.",
        r"CN=Monitor+UID=7,O=Söhne\, Inc.",
        r"CN=monitor+UID=7,O=Söhne\, Inc.,C=DE",
        "CN=monitor",
        "URI:ops@example.com",
        "email:Ops@example.com",
        "DNS:example.com",
    ],
)
def test_another_name_is_not_found(text: str) -> None:
    assert parse(text) not in of_certificate(SHOWN)


@pytest.mark.parametrize(
    "text",
    [
        *("", "monitor", "CN=a,", ",CN=a", "CN=a,,O=b", "CN=a;O=b", 'CN="a"'),
        *("CN=a\\", "CN=\\zz", "CN=\\ff", "DNS:", "IP:192.0.2.1"),
    ],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"a subject|a name"):
        parse(text)


def test_an_empty_certificate_has_no_name() -> None:
    assert of_certificate({}) == set()


ENTRY = '[{name}]\ncertificates = {certificates}\nroles = ["viewer"]\n'


@pytest.mark.parametrize(
    ("certificates", "words"),
    [("[]", "no list"), ('"CN=a"', "no list"), ("[1]", "is not a subject"), ('["a"]', "RFC 4514")],
)
def test_certificates_that_cannot_be_read_name_the_principal(certificates: str, words: str) -> None:
    with pytest.raises(Misconfigured, match=rf"\[monitor\].*{words}"):
        parse_credentials(ENTRY.format(name="monitor", certificates=certificates))


def test_one_certificate_belongs_to_one_principal() -> None:
    text = ENTRY.format(name="a", certificates='["CN=x,O=y"]') + ENTRY.format(name="b", certificates='["cn=x, o=y"]')
    with pytest.raises(Misconfigured, match=r"\[a\] and \[b\] have the same certificate"):
        parse_credentials(text)
