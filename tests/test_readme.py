"""README's tables equal the code, its links lead somewhere, and CHANGELOG names every dependency."""

import configparser
import contextlib
import dataclasses
import hashlib
import json
import re
from pathlib import Path

import pytest
from flask import Flask

from postqueue_api.config import Settings, variable
from postqueue_api.errors import by_code
from postqueue_api.web import schemas
from postqueue_api.web.app import create_app

CLONE = Path(__file__).parent.parent
README = (CLONE / "README.md").read_text(encoding="utf-8")
CHANGELOG = (CLONE / "CHANGELOG.md").read_text(encoding="utf-8")
TOKEN_HASH = hashlib.sha256(b"a-token-of-sufficient-length-for-tests").hexdigest()
# The files of Swagger UI, and the catch-all that tells a bad queue ID as such.
INNER = {"/docs/{name}", "/v1/messages/{rest}"}


def table(text: str, heading: str) -> list[tuple[str, ...]]:
    """The rows of the table below a heading, without the backquotes."""
    _, _, section = text.partition(f"# {heading}\n")
    lines = [line for line in section.partition("\n#")[0].splitlines() if line.startswith("|")]
    return [tuple(cell.strip().replace("`", "") for cell in line.strip("|").split("|")) for line in lines[2:]]


@pytest.fixture(scope="module")
def app(tmp_path_factory: pytest.TempPathFactory) -> Flask:
    credentials = f'[reader]\ntoken_sha256 = "{TOKEN_HASH}"\nroles = ["viewer"]\n'
    return create_app(Settings(credentials=credentials, state_directory=tmp_path_factory.mktemp("state")))


def test_the_table_of_routes_is_the_url_map_with_the_role_of_each(app: Flask) -> None:
    routes = {
        (f"{method} {path}", getattr(app.view_functions[rule.endpoint], "required_role", "none"))
        for rule in app.url_map.iter_rules()
        if (path := re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)) not in INNER
        if not rule.endpoint.startswith("dashboard.")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    written = [(route, role) for route, role, _ in table(README, "Routes")]
    assert sorted(written) == sorted(routes)


def test_the_table_of_settings_is_that_of_the_code() -> None:
    shown = {None: "none", True: "yes", False: "no"}
    in_code = [
        (
            variable(field.name),
            shown[field.default] if field.default is None or isinstance(field.default, bool) else str(field.default),
            field.metadata["sentence"].replace("`", ""),
        )
        for field in dataclasses.fields(Settings)
    ]
    assert table(README, "Settings") == in_code


def test_the_table_of_errors_is_the_tree() -> None:
    written = table(README, "Errors")
    assert sorted((code, status) for code, status, _ in written) == sorted(
        (code, str(cls.status)) for code, cls in by_code().items()
    )
    assert [code for code, _, what_to_do in written if not what_to_do.endswith(".")] == []


def test_every_setting_and_code_that_is_mentioned_exists() -> None:
    mentioned = set(re.findall(r"POSTQUEUE_API_[A-Z_]+", README + CHANGELOG))
    assert mentioned <= {variable(field.name) for field in dataclasses.fields(Settings)}


def test_every_example_asks_for_a_route_that_there_is(app: Flask) -> None:
    text = README.replace("\\\n", "")
    examples = re.findall(r"^    \$ curl (.*)$", text, re.MULTILINE)
    assert len(examples) >= 12
    adapter = app.url_map.bind("")
    for example in examples:
        found = re.search(r"127\.0\.0\.1:8025(/[^\s\"?]*)", example)
        method = re.search(r"-X (\w+)", example)
        assert found is not None
        adapter.match(found[1], method[1] if method else "POST" if "--json" in example else "GET")


@pytest.mark.parametrize(
    ("first_member", "shown"),
    [
        ("snapshot_id", schemas.SnapshotOutput),
        ("queue_name", schemas.QueueOutput),
        ("queue_name", schemas.MessageOutput),
        ("key", schemas.GroupOutput),
        ("operation_id", schemas.ChangeOutput),
        ("position", schemas.ResultOutput),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_the_examples_show_the_members_that_answers_have(first_member: str, shown: type[schemas.Output]) -> None:
    """An object that is shown whole; what has three dots for what was left out is none."""
    text = " ".join(line.strip() for line in README.splitlines() if line.startswith("    "))
    found = []
    for start in re.finditer(rf'\{{"{first_member}"', text):
        with contextlib.suppress(json.JSONDecodeError):
            found.append(set(json.JSONDecoder().raw_decode(text, start.start())[0]))
    assert set(shown.model_fields) in found


@pytest.mark.parametrize("name", ["README.md", *(f"docs/{path.name}" for path in (CLONE / "docs").glob("*.md"))])
def test_every_link_and_every_folder_that_is_named_is_there(name: str) -> None:
    text = (CLONE / name).read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (CLONE / name).parent.joinpath(link).exists(), link
    for path in re.findall(r"`((?:postqueue_api|tests|benchmarks|deploy)/[^`]*)`", text):
        assert (CLONE / path).exists(), path


def test_every_folder_has_its_sentence() -> None:
    text = (CLONE / "docs" / "README.md").read_text(encoding="utf-8")
    packages = {path.parent.name for path in (CLONE / "postqueue_api").glob("*/__init__.py")}
    assert {name for name in packages if f"`postqueue_api/{name}/`" not in text} == set()


def test_every_dependency_has_its_reason() -> None:
    setup = configparser.ConfigParser()
    setup.read(CLONE / "setup.cfg")
    needed = [line.split()[0] for line in setup["options"]["install_requires"].strip().splitlines()]
    assert [name for name, _ in table(CHANGELOG, "Dependencies")] == needed
    for line in setup["options.extras_require"]["test"].strip().splitlines():
        assert line.split()[0] in CHANGELOG.rpartition("For the tests:")[2]
