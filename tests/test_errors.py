"""The tree of errors: as drawn, with stable codes."""

import re

import pytest

from postqueue_api import errors
from postqueue_api.errors import Error, InvalidArgument, TooManyRequests, by_code

BRANCH = re.compile(r"^    (?P<indent>[│ ]*)[├└]── (?P<name>\w+) +(?P<status>[0-9]{3})?")


def drawn() -> dict[str, tuple[str, int | None]]:
    """The tree in the docstring: class, its parent and the status beside it."""
    found: dict[str, tuple[str, int | None]] = {}
    above = ["Error"]
    for line in (errors.__doc__ or "").splitlines():
        if branch := BRANCH.match(line):
            depth = len(branch["indent"]) // 4 + 1
            above[depth:] = [branch["name"]]
            found[branch["name"]] = (above[depth - 1], int(branch["status"]) if branch["status"] else None)
    return found


def built() -> dict[str, tuple[str, int]]:
    return {cls.__name__: (cls.__bases__[0].__name__, cls.status) for cls in by_code().values() if cls is not Error}


def test_the_tree_is_the_one_that_is_drawn() -> None:
    assert {name: parent for name, (parent, _) in drawn().items()} == {
        name: parent for name, (parent, _) in built().items()
    }


def test_each_status_is_the_one_beside_the_class_or_beside_its_parent() -> None:
    tree = drawn()
    beside = {name: status or tree[parent][1] for name, (parent, status) in tree.items()}
    assert beside == {name: status for name, (_, status) in built().items()}


def test_each_code_is_one_class_in_snake_case() -> None:
    classes = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Error)]
    codes = [cls.code for cls in classes]
    assert sorted(codes) == sorted(set(codes)) == sorted(by_code())
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", code) for code in codes)
    assert by_code()["no_such_message"] is errors.NoSuchMessage


@pytest.mark.parametrize("cls", by_code().values())
def test_each_class_has_a_title_of_its_own_that_is_a_sentence(cls: type[Error]) -> None:
    assert re.fullmatch(r"[A-Z].*[^.]", cls.title)
    assert [other.title for other in by_code().values()].count(cls.title) <= 2


def test_members_that_are_none_are_left_out() -> None:
    assert InvalidArgument("no", field="limit").members == {"field": "limit"}
    assert Error("no", a=None, b=0, c="").members == {"b": 0, "c": ""}


def test_too_many_requests_says_when_to_come_again() -> None:
    error = TooManyRequests("slow down", retry_after=7)
    assert (error.retry_after, error.members, str(error)) == (7, {"retry_after": 7}, "slow down")
