"""The catalogue of texts, in English and Japanese: `t("overview.title")` in a template.

Each file below texts/ is TOML: a table for a page, in it a key with a text for each language. A text that counts
something has two forms in English: `en = { one = "{count} message", other = "{count} messages" }`. Values come as
{name}; numbers are written with their thousands apart. A value is escaped unless it is markup already.
"""

import tomllib
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

from flask import g, request
from markupsafe import Markup, escape

LANGUAGES = {"en": "English", "ja": "日本語"}
COOKIE = "postqueue_api_language"

Forms = Mapping[str, str]


def catalogue() -> dict[str, dict[str, Forms]]:
    """Every text: by key, then language, then form (`one`, `other`)."""
    found: dict[str, dict[str, Forms]] = {}
    for file in resources.files(__package__).joinpath("texts").iterdir():
        if file.name.endswith(".toml"):
            for key, texts in _flat(tomllib.loads(file.read_text(encoding="utf-8"))):
                if key in found:
                    raise ValueError(f"{file.name}: {key} is there already")
                found[key] = texts
    return found


def language() -> str:
    """The reader's language: as asked for with ?lang=, as chosen before, or as the browser prefers."""
    if "language" not in g:
        chosen = request.args.get("lang") or request.cookies.get(COOKIE)
        preferred = request.accept_languages.best_match(list(LANGUAGES), default="en")
        g.language = chosen if chosen in LANGUAGES else preferred
    return str(g.language)


def t(key: str, **values: Any) -> Markup:
    """A text in the reader's language; `count` chooses the form. Raises KeyError for a key that is not there."""
    return text(language(), key, **values)


def text(language_: str, key: str, **values: Any) -> Markup:
    """A text in a language."""
    forms = CATALOGUE[key][language_]
    form = forms["one"] if values.get("count") == 1 and "one" in forms else forms["other"]
    return Markup(escape(form)).format(**{name: _shown(value) for name, value in values.items()})  # noqa: S704


def _shown(value: Any) -> Any:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else value


def _flat(table: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, dict[str, Forms]]]:
    for name, value in table.items():
        key = f"{above}{name}"
        if set(LANGUAGES) & set(value):
            if set(value) != set(LANGUAGES):
                raise ValueError(f"{key} has not exactly the languages {', '.join(LANGUAGES)}")
            yield key, {each: {"other": text} if isinstance(text, str) else text for each, text in value.items()}
        else:
            yield from _flat(value, f"{key}.")


CATALOGUE = catalogue()
