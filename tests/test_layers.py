"""Who may import whom, as a table of rules; each row carries the smallest code that breaks it."""

import ast
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import postqueue_api

PACKAGE = Path(postqueue_api.__file__).parent

SHELLS = {
    "os.system",
    "os.popen",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    "asyncio.create_subprocess_shell",
}
PROCESS_STARTERS = {
    *(f"os.{name}" for name in ("fork", "forkpty", "posix_spawn", "posix_spawnp")),
    *(f"os.exec{suffix}" for suffix in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")),
    *(f"os.spawn{suffix}" for suffix in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")),
    "asyncio.create_subprocess_exec",
    "multiprocessing",
    "pty",
}


@dataclass(frozen=True)
class Module:
    """One module: its dotted name below postqueue_api ("" for the package itself) and its tree."""

    name: str
    tree: ast.Module
    is_package: bool = False

    def within(self, *layers: str) -> bool:
        return any(self.name == layer or self.name.startswith(f"{layer}.") for layer in layers)

    def imports(self) -> Iterator[str]:
        """Dotted names, absolute; `from a import b` gives a.b, whether b is a module or in one."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield from (f"{self._origin(node)}.{alias.name}" for alias in node.names)

    def ours(self) -> set[str]:
        """What it imports of postqueue_api, below postqueue_api."""
        return {name.removeprefix("postqueue_api.") for name in self.imports() if name.startswith("postqueue_api.")}

    def reaches(self, *layers: str) -> bool:
        return any(Module(name, self.tree).within(*layers) for name in self.ours())

    def _origin(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        full = ["postqueue_api", *filter(None, self.name.split("."))]
        above = full[: len(full) - node.level + self.is_package]
        return ".".join([*above, *filter(None, [node.module])])

    def dotted(self) -> set[str]:
        """Every `a.b` that is written, and every name that is imported."""
        written = {ast.unparse(node) for node in ast.walk(self.tree) if isinstance(node, ast.Attribute)}
        return written | set(self.imports())


def may_reach(layer: str, *allowed: str) -> Callable[[Module], bool]:
    """Of postqueue_api, a module of the layer imports the allowed ones and its own layer only."""
    return lambda module: (
        not module.within(layer) or all(Module(name, module.tree).within(layer, *allowed) for name in module.ours())
    )


def never_reaches(layer: str, *forbidden: str) -> Callable[[Module], bool]:
    return lambda module: not module.within(layer) or not module.reaches(*forbidden)


def strangers(*siblings: str) -> Callable[[Module], bool]:
    """Modules that stand side by side do not import each other."""
    return lambda module: (
        not module.within(*siblings) or not module.reaches(*(s for s in siblings if not module.within(s)))
    )


def only_in(places: tuple[str, ...], *names: str) -> Callable[[Module], bool]:
    """The names, and what is below them, are used in these places only."""
    return lambda module: (
        module.within(*places)
        or not any(used == name or used.startswith(f"{name}.") for used in module.dotted() for name in names)
    )


def no_shell(module: Module) -> bool:
    keywords = (node for node in ast.walk(module.tree) if isinstance(node, ast.keyword))
    return not module.dotted() & SHELLS and not any(
        word.arg == "shell" and not (isinstance(word.value, ast.Constant) and word.value.value is False)
        for word in keywords
    )


COMMANDS = tuple(f"postfix.{command}" for command in ("postqueue", "postsuper", "postcat", "postconf"))
RESOURCES = tuple(
    f"web.{resource}"
    for resource in (
        *("messages", "content", "changes", "operations", "queues", "groups", "ages", "sites", "trash", "status"),
        *("samples", "drain", "health", "metrics", "openapi", "documents", "dashboard"),
    )
)
PAGES = tuple(
    f"web.dashboard.{page}"
    for page in ("login", "overview", "messages", "message", "actions", "operations", "trash", "assets")
)
# What puts the halves together and starts them.
STARTERS = ("cli", "server", "supervisor", "__main__")

# A sentence; what holds for every module; a module and a text for which it does not.
RULES: list[tuple[str, Callable[[Module], bool], str, str]] = [
    ("errors imports nothing of ours", may_reach("errors"), "errors", "from postqueue_api import config"),
    ("config imports errors only", may_reach("config", "errors"), "config", "import postqueue_api.queue.snapshot"),
    (
        "postfix imports errors and config only",
        may_reach("postfix", "errors", "config"),
        "postfix.postqueue",
        "from ..queue import snapshot",
    ),
    (
        "queue imports errors and config only",
        may_reach("queue", "errors", "config"),
        "queue.journal",
        "from postqueue_api.postfix.postsuper import hold",
    ),
    (
        "agent never imports web, sandbox or what starts it",
        never_reaches("agent", "web", "sandbox", *STARTERS),
        "agent.app",
        "from ..web import auth",
    ),
    (
        "web never imports agent, sandbox or what starts it",
        never_reaches("web", "agent", "sandbox", *STARTERS),
        "web.messages",
        "def late():\n    from postqueue_api.agent import executor",
    ),
    (
        "web never imports what runs a command",
        never_reaches("web", "postfix.process", *COMMANDS),
        "web.status",
        "from postqueue_api.postfix import process",
    ),
    (
        "sandbox imports errors, config, lifeline and postfix only",
        may_reach("sandbox", "errors", "config", "lifeline", "postfix"),
        "sandbox.server",
        "from postqueue_api.web import app",
    ),
    ("commands are strangers", strangers(*COMMANDS), "postfix.postqueue", "from . import postsuper"),
    ("resources are strangers", strangers(*RESOURCES), "web.queues", "from .messages import listing"),
    ("pages are strangers", strangers(*PAGES), "web.dashboard.trash", "from .operations import list_operations"),
    (
        "the dashboard gets what it shows by asking /v1: neither agent nor snapshot nor journal is in its reach",
        never_reaches(
            *("web.dashboard", "web.agent_client", "queue.snapshot", "queue.page", "queue.groups", "queue.ages"),
            *("queue.samples", "queue.journal", "queue.journal_reader", "queue.trash", "queue.operation"),
        ),
        "web.dashboard.overview",
        "from postqueue_api.queue import snapshot",
    ),
    (
        "of the dashboard the login alone has the application's context, for its limits",
        lambda module: (
            not module.within("web.dashboard")
            or module.within("web.dashboard.login")
            or not module.reaches("web.context")
        ),
        "web.dashboard.messages",
        "from postqueue_api.web.context import fresh_snapshot",
    ),
    (
        "subprocess is in postfix.process and sandbox only",
        only_in(("postfix.process", "sandbox"), "subprocess"),
        "agent.executor",
        "from subprocess import run",
    ),
    (
        "nothing else starts a process, but for what starts agent and web",
        only_in((*STARTERS, "sandbox"), *PROCESS_STARTERS),
        "agent.refresh",
        "import os\nos.execv('/bin/sh', ())",
    ),
    ("there is no shell: os.system", no_shell, "cli", "import os\nos.system('ls')"),
    ("there is no shell: shell=True", no_shell, "postfix.process", "Popen('ls', shell=True)"),
    ("there is no shell: shell=variable", no_shell, "sandbox.server", "run('ls', shell=wanted)"),
    (
        "postfix knows no Flask and no SQL",
        only_in((*STARTERS, "agent", "web", "queue", "sandbox"), "flask", "apiflask", "sqlite3"),
        "postfix.postcat",
        "import sqlite3",
    ),
    (
        "queue knows no Flask",
        only_in((*STARTERS, "agent", "web"), "flask", "apiflask"),
        "queue.snapshot",
        "from flask import g",
    ),
]


@functools.cache
def modules() -> list[Module]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        found.append(Module(name, ast.parse(path.read_text(encoding="utf-8"), str(path)), is_package))
    return found


@pytest.mark.parametrize(("sentence", "holds"), [rule[:2] for rule in RULES], ids=[rule[0] for rule in RULES])
def test_rule_holds_for_every_module(sentence: str, holds: Callable[[Module], bool]) -> None:
    assert [module.name for module in modules() if not holds(module)] == [], sentence


@pytest.mark.parametrize(("sentence", "holds", "name", "broken"), RULES, ids=[rule[0] for rule in RULES])
def test_rule_bites(sentence: str, holds: Callable[[Module], bool], name: str, broken: str) -> None:
    assert holds(Module(name, ast.parse("import json"))), sentence
    assert not holds(Module(name, ast.parse(broken))), sentence


def test_rules_see_the_whole_package() -> None:
    layers = {"", "config", "errors", "postfix", "postfix.process", "queue", "agent", "web", "sandbox"}
    assert layers <= {module.name for module in modules()}


def reachable(start: str, every: dict[str, Module]) -> set[str]:
    """The modules that an import of one brings in, directly or by way of others."""
    found: set[str] = set()
    pending = {start}
    while pending:
        name = pending.pop()
        found.add(name)
        chains = {
            imported.rsplit(".", cut)[0] for imported in every[name].ours() for cut in range(imported.count(".") + 1)
        }
        pending |= {chain for chain in chains if chain in every} - found
    return found


def test_web_reaches_no_process_by_any_way() -> None:
    every = {module.name: module for module in modules()}
    for name in [name for name in every if name == "web" or name.startswith("web.")]:
        assert not reachable(name, every) & {"postfix.process", "agent", "sandbox"}, name


def test_a_way_through_two_modules_is_seen() -> None:
    texts = {"web.a": "from ..queue import b", "queue.b": "from ..postfix.process import run", "postfix.process": ""}
    every = {name: Module(name, ast.parse(text)) for name, text in texts.items()}
    assert "postfix.process" in reachable("web.a", every)


@pytest.mark.parametrize(
    ("name", "is_package", "text", "imported"),
    [
        ("web.messages", False, "from . import auth", {"web.auth"}),
        ("web.messages", False, "from ..queue import snapshot", {"queue.snapshot"}),
        ("web", True, "from .app import create", {"web.app.create"}),
        ("", True, "from .errors import Error", {"errors.Error"}),
    ],
)
def test_relative_imports_are_resolved(name: str, is_package: bool, text: str, imported: set[str]) -> None:
    assert Module(name, ast.parse(text), is_package).ours() == imported
