"""What holds for every page: where it leads, what loads it, and that each template can be read."""

import gzip
import re
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

import postqueue_api.web.dashboard
from postqueue_api.config import Settings
from postqueue_api.web.app import create_app
from postqueue_api.web.dashboard import page
from postqueue_api.web.dashboard.assets import FILES, KINDS, VERSION

DASHBOARD = Path(postqueue_api.web.dashboard.__file__).parent
CREDENTIALS = f'[viewer]\ntoken_sha256 = "{"1" * 64}"\nroles = ["viewer"]\n'
LIMIT_BYTES = 60_000


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    return create_app(Settings(credentials=CREDENTIALS, state_directory=tmp_path_factory.mktemp("state")))


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.mark.parametrize(
    "address",
    ["/", "/messages?sender=a%40b&sort=-size", "/messages/4zzz", "/operations?next=5#results", "/a//b"],
)
def test_an_address_of_ours_is_gone_on_to(address: str) -> None:
    assert page.local(address) == address


@pytest.mark.parametrize(
    "address",
    [
        *(None, "", "messages", "//evil.example", "///evil.example", "/\\evil.example", "\\/evil.example"),
        *("http://evil.example", "javascript:alert(1)", "/a b", "/a\nb", "/a\tb", "/\t/evil.example", "/é", " /"),
    ],
)
def test_nothing_else_is(address: str | None) -> None:
    assert page.local(address) == "/"
    assert page.local(address, "/trash") == "/trash"


@pytest.mark.parametrize("path", sorted(DASHBOARD.glob("templates/*.html")), ids=lambda path: path.name)
def test_every_template_can_be_read_and_has_nothing_inline(app: Flask, path: Path) -> None:
    app.jinja_env.get_template(path.name)
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"\|\s*safe\b", text)
    assert not re.search(r"\sstyle=|<style|\son[a-z]+=|javascript:", text)
    assert not re.search(r"<script(?![^>]*\ssrc=)", text)
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//""", text)


@pytest.mark.parametrize("path", sorted(DASHBOARD.glob("templates/*.html")), ids=lambda path: path.name)
def test_every_form_that_changes_something_carries_the_token(path: Path) -> None:
    open_to_all = ('action="/login"', 'action="/theme"')
    for form in re.findall(r"<form[^>]*method=\"post\".*?</form>", path.read_text(encoding="utf-8"), re.DOTALL):
        assert "csrf()" in form or any(each in form for each in open_to_all), form[:200]


@pytest.mark.parametrize(("name", "kind"), KINDS.items())
def test_a_file_may_be_kept_for_ever_by_its_version_only(client: FlaskClient, name: str, kind: str) -> None:
    kept = client.get(f"/dashboard/{VERSION}/{name}")
    assert (kept.status_code, kept.mimetype) == (200, kind)
    assert "immutable" in kept.headers["Cache-Control"]
    other = client.get(f"/dashboard/another/{name}")
    assert (other.status_code, other.headers["Cache-Control"]) == (200, "no-cache")
    assert other.data == kept.data


@pytest.mark.parametrize("name", KINDS)
def test_a_file_is_compressed_for_whoever_takes_that(client: FlaskClient, name: str) -> None:
    address = f"/dashboard/{VERSION}/{name}"
    small = client.get(address, headers={"Accept-Encoding": "br, gzip"})
    assert small.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(small.data) == FILES[name]
    for accepted in ({}, {"Accept-Encoding": "br"}, {"Accept-Encoding": "gzip;q=0, identity"}):
        plain = client.get(address, headers=accepted)
        assert plain.data == FILES[name]
        assert "Content-Encoding" not in plain.headers
        assert plain.vary.as_set() == small.vary.as_set() == {"accept-encoding"}


def test_a_page_is_not_compressed_because_it_may_hold_a_token(client: FlaskClient) -> None:
    answer = client.get("/login", headers={"Accept-Encoding": "gzip"})
    assert answer.data.startswith(b"<!doctype html>")
    assert "Content-Encoding" not in answer.headers


@pytest.mark.parametrize("name", ["nothing.js", "../page.py", "..%2fpage.py", "dashboard.html"])
def test_nothing_else_is_served(client: FlaskClient, name: str) -> None:
    assert client.get(f"/dashboard/{VERSION}/{name}").status_code == 404


def test_script_and_stylesheet_have_every_part_and_are_small() -> None:
    for path in DASHBOARD.glob("static/*"):
        whole = FILES[path.name if path.suffix == ".svg" else f"dashboard{path.suffix}"]
        whole = b"".join(whole.split())  # spaces that say nothing are left out of it
        lines = [line.replace("export ", "") for line in path.read_text(encoding="utf-8").split("\n")]
        told = [line for line in lines if line.strip().endswith((";", "}", ">"))]
        assert [line for line in told if "".join(line.split()).encode() not in whole] == [], path
    assert sum(map(len, FILES.values())) < LIMIT_BYTES * 3 // 4, "the rest is for the page itself"


@pytest.mark.parametrize(("accept", "kind"), [("text/html,*/*;q=0.8", "text/html"), (None, "application/problem+json")])
def test_where_nothing_is_a_browser_gets_a_page_and_a_program_a_problem(
    client: FlaskClient, accept: str | None, kind: str
) -> None:
    answer = client.get("/nothing-here", headers={"Accept": accept} if accept else {})
    assert (answer.status_code, answer.mimetype) == (404, kind)
    assert client.get("/v1/nothing", headers={"Accept": "text/html"}).mimetype == "application/problem+json"


def test_a_service_without_an_agent_still_has_its_login(client: FlaskClient) -> None:
    assert client.get("/login").status_code == 200
    assert client.get("/").headers["Location"] == "/login?next=/"


def test_the_policy_allows_what_is_needed_from_us_and_nothing_else(client: FlaskClient) -> None:
    assert client.get("/login").headers["Content-Security-Policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


def test_an_origin_that_is_none_is_refused_and_is_no_fault(client: FlaskClient) -> None:
    for path in ("/login", "/theme", "/preview"):
        assert client.post(path, data={}, headers={"Origin": "http://[x"}).status_code in (303, 401, 403), path
