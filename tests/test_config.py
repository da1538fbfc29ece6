"""Settings: what each accepts, and that a wrong one stops the start with its name."""

import dataclasses
from ipaddress import ip_network
from pathlib import Path

import pytest

from postqueue_api.config import PREFIX, Address, Settings, load, variable
from postqueue_api.errors import Misconfigured

GOOD = [
    ("BIND", "0.0.0.0:80", Address("0.0.0.0", 80)),
    ("BIND", "[::1]:8025", Address("::1", 8025)),
    ("BIND", "mail.example.com:65535", Address("mail.example.com", 65535)),
    ("TLS_ENDED_BY_PROXY", "yes", True),
    ("TLS_ENDED_BY_PROXY", "no", False),
    ("CONFIG_DIRECTORY", "/etc/postfix two", Path("/etc/postfix two")),
    ("USER", "web", "web"),
    ("CREDENTIALS", "[a]\n", "[a]\n"),
    ("SNAPSHOT_MAX_AGE_SECONDS", "0", 0),
    ("SNAPSHOT_MAX_AGE_SECONDS", "86400", 86400),
    ("WEB_THREADS", "0002", 2),
    ("TLS_CLIENT_CERTIFICATES", "optional", "optional"),
    ("TRUSTED_PROXIES", "10.0.0.5, fd00::/8", (ip_network("10.0.0.5/32"), ip_network("fd00::/8"))),
    ("CLIENT_CERTIFICATE_HEADER", "X-Amzn-Mtls-Clientcert-Subject", "X-Amzn-Mtls-Clientcert-Subject"),
]
BAD = [
    *(("BIND", text) for text in ("", "8025", ":8025", "a:", "a:0", "a:65536", "a:-1", "a b:1", "a:1\n")),
    *(("BIND", text) for text in ("::1:8025", "[a]:1", "[1.2.3.4]:1", "[]:1", "[::1]", "[::1%lo]:1")),
    *(("TLS_ENDED_BY_PROXY", text) for text in ("", "true", "1", "Yes", "no ")),
    *(("STATE_DIRECTORY", text) for text in ("", "relative", "./x", "~/x")),
    *(("USER", text) for text in ("",)),
    *(("CREDENTIALS", text) for text in ("",)),
    *(("TLS_CLIENT_CERTIFICATES", text) for text in ("", "yes", "Required")),
    *(("TRUSTED_PROXIES", text) for text in ("", "proxy", "10.0.0.1/8", "10.0.0.1,,10.0.0.2")),
    *(("CLIENT_CERTIFICATE_HEADER", text) for text in ("", "X_Subject", "X Subject", "X-Subject:")),
    *(("SNAPSHOT_MAX_AGE_SECONDS", text) for text in ("", "-1", "86401", "1.5", "1e3", "1_0")),
    *(("SNAPSHOT_MAX_AGE_SECONDS", text) for text in (" 1", "1 ", "1\n", "\u0661", "9" * 400)),
    *(("COMMAND_TIMEOUT_SECONDS", text) for text in ("0", "3601")),
]  # fmt: skip


def test_without_any_variable_the_defaults_hold() -> None:
    settings = load({"PATH": "/usr/bin", "HOME": "/root"})
    assert settings == Settings()
    assert (str(settings.bind), settings.bind.is_loopback, settings.credentials) == ("127.0.0.1:8025", True, None)


@pytest.mark.parametrize(("name", "text", "value"), GOOD)
def test_a_value_is_read_as_its_type(name: str, text: str, value: object) -> None:
    assert getattr(load({PREFIX + name: text}), name.lower()) == value


@pytest.mark.parametrize(("name", "text"), BAD)
def test_a_value_that_cannot_be_read_stops_the_start_with_its_name(name: str, text: str) -> None:
    with pytest.raises(Misconfigured, match=f"^{PREFIX}{name} must be "):
        load({PREFIX + name: text})


@pytest.mark.parametrize("name", ["BINDING", "bind", "", "CREDENTIAL", "SNAPSHOT_MAX_AGE"])
def test_a_variable_that_is_no_setting_stops_the_start(name: str) -> None:
    with pytest.raises(Misconfigured, match=f"^{PREFIX}{name} is not a setting"):
        load({PREFIX + name: "1"})


def test_a_value_is_never_repeated_for_it_may_be_secret() -> None:
    with pytest.raises(Misconfigured) as caught:
        load({PREFIX + "STATE_DIRECTORY": "hunter2hunter2"})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False),
        ("192.0.2.1", False), ("mail.example.com", False), ("localhost.example.com", False),
        ("127.0.0.1.example.com", False),
    ],
)  # fmt: skip
def test_only_this_machine_is_loopback(host: str, loopback: bool) -> None:
    assert Address(host, 1).is_loopback is loopback


@pytest.mark.parametrize("text", ["127.0.0.1:8025", "[::1]:8025", "a.example:1"])
def test_an_address_is_written_as_it_is_read(text: str) -> None:
    assert str(load({PREFIX + "BIND": text}).bind) == text


@pytest.mark.parametrize("field", dataclasses.fields(Settings), ids=lambda field: field.name)
def test_each_setting_has_a_variable_a_sentence_and_a_default_that_it_accepts(
    field: "dataclasses.Field[object]",
) -> None:
    assert variable(field.name) == "POSTQUEUE_API_" + field.name.upper()
    assert field.metadata["sentence"].endswith((".", ")"))
    if isinstance(field.default, bool):
        assert field.metadata["parse"]("yes" if field.default else "no") == field.default
    elif field.default is not None:
        assert field.metadata["parse"](str(field.default)) == field.default
