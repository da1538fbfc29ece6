"""The catalogue: every text in both languages, every key that is used is there, and none is there for nothing."""

import re
from pathlib import Path
from string import Formatter

import pytest
from flask import Flask
from markupsafe import Markup

import postqueue_api.web.dashboard
from postqueue_api import errors
from postqueue_api.web import problem
from postqueue_api.web.dashboard import page, texts

DASHBOARD = Path(postqueue_api.web.dashboard.__file__).parent
SOURCES = "\n".join(
    path.read_text(encoding="utf-8") for path in sorted(DASHBOARD.rglob("*")) if path.suffix in (".py", ".html")
)
# Whole keys, in quotes; and beginnings to which something is added: "action." ~ name, f"action.{name}".
USED = set(re.findall(r"""["']([a-z_]+(?:\.[a-z_]+)+)["']""", SOURCES)) | set(
    re.findall(r""""([a-z_]+(?:\.[a-z_]+)+)" if""", SOURCES)
)
BEGINNINGS = set(re.findall(r"""["']([a-z_]+\.(?:[a-z_.]*))["'] *~""", SOURCES)) | set(
    re.findall(r"""f["']([a-z_]+\.(?:[a-z_.]*)){""", SOURCES)
)
CALLED = set(re.findall(r"""\bt\(["']([a-z_.]+)["']\s*[,)]""", SOURCES))


def names(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


def test_every_key_that_is_asked_for_is_there() -> None:
    assert {key for key in CALLED if key not in texts.CATALOGUE} == set()
    assert len(CALLED) > 50


def test_no_text_is_there_for_nothing() -> None:
    unused = {key for key in texts.CATALOGUE if key not in USED and not key.startswith(tuple(BEGINNINGS))}
    assert unused == set()


@pytest.mark.parametrize("key", texts.CATALOGUE)
def test_both_languages_say_the_same_values_in_words_of_their_own(key: str) -> None:
    english, japanese = (texts.CATALOGUE[key][language] for language in ("en", "ja"))
    assert set(japanese) == {"other"}, "Japanese has no plural"
    assert set(english) in ({"other"}, {"one", "other"})
    assert names(english["other"]) | {"count"} == names(japanese["other"]) | {"count"}
    assert names(english.get("one", "")) <= names(english["other"]), "a form for one may leave its number out"
    for text in (*english.values(), *japanese.values()):
        assert text.strip() or key == "format.between"
    assert not re.search(r"[\u3040-\u30ff\u4e00-\u9fff]", "".join(english.values()))
    if re.search("[a-z]", re.sub(r"{\w+}", "", english["other"])):  # more than a name and values
        assert re.search(r"[\u3000-\u30ff\u4e00-\u9fff\uff00-\uffef]", japanese["other"]), japanese


@pytest.mark.parametrize(
    ("address", "accepted", "cookie", "expected"),
    [
        ("/", "", None, "en"),
        ("/", "ja", None, "ja"),
        ("/", "ja-JP,ja;q=0.9,en;q=0.8", None, "ja"),
        ("/", "de,en;q=0.5,ja;q=0.4", None, "en"),
        ("/", "fr", None, "en"),
        ("/", "en", "ja", "ja"),
        ("/?lang=en", "ja", "ja", "en"),
        ("/?lang=xx", "ja", None, "ja"),
        ("/", "ja", "<script>", "ja"),
    ],
)
def test_the_language_is_as_asked_for_else_as_chosen_else_as_preferred(
    address: str, accepted: str, cookie: str | None, expected: str
) -> None:
    headers = {"Accept-Language": accepted, **({"Cookie": f"{texts.COOKIE}={cookie}"} if cookie else {})}
    with Flask(__name__).test_request_context(address, headers=headers):
        assert texts.language() == expected


def test_values_are_escaped_numbers_are_written_readably_and_markup_stays_markup() -> None:
    key = "format.seconds"
    assert texts.text("en", key, count=1) == "1 second"
    assert texts.text("en", key, count=12345) == "12,345 seconds"
    assert texts.text("ja", key, count=1) == "1秒"
    assert texts.text("en", "help.go", page="<b>{x}</b>") == "&lt;b&gt;{x}&lt;/b&gt;"
    assert texts.text("en", "help.go", page=Markup("<b>bold</b>")) == "<b>bold</b>"


def test_a_key_that_is_not_there_is_an_error() -> None:
    with pytest.raises(KeyError):
        texts.text("en", "no.such.key")


def test_a_text_in_one_language_alone_is_refused() -> None:
    assert list(texts._flat({"a": {"b": {"en": "x", "ja": "y"}}})) == [
        ("a.b", {"en": {"other": "x"}, "ja": {"other": "y"}})
    ]
    with pytest.raises(ValueError, match=r"a\.b has not exactly"):
        list(texts._flat({"a": {"b": {"en": "x"}}}))


def test_what_the_script_says_is_in_the_catalogue() -> None:
    script = (DASHBOARD / "static" / "dashboard.js").read_text(encoding="utf-8")
    said = set(re.findall(r'\bsay\("\w*", "(\w+)"', script)) | set(re.findall(r'\bend\("(\w+)"', script))
    assert said <= set(page.LIVE_TEXTS)
    assert [name for name in page.LIVE_TEXTS if f'"{name}"' not in script] == []


def test_every_error_has_a_title_and_a_sentence_in_each_language() -> None:
    codes = {*errors.by_code(), *problem._HTTP_CODES.values(), "stale_form", "foreign_form"}
    told = {
        part: {key.rpartition(".")[2] for key in texts.CATALOGUE if key.startswith(part)}
        for part in ("problem.title.", "problem.means.")
    }
    assert [codes - names for names in told.values()] == [set()] * 2


# Words for which there is another one that all texts have.
OTHERS = ("ゴミ箱", "送信元", "送信者のドメイン", "宛先のドメイン", "待機の理由")


def test_one_thing_has_one_name_in_japanese() -> None:
    said = {key: forms["ja"]["other"] for key, forms in texts.CATALOGUE.items()}
    assert {key: text for key, text in said.items() if any(word in text for word in OTHERS)} == {}
    for key, text in said.items():
        english = texts.CATALOGUE[key]["en"]["other"].lower()
        assert "保留" not in text or re.search("hold|held|release", english), f"{key}: 保留 is hold"
        assert "deferred" not in english or "deferred" in text or "配送待ち" in text, key
