"""docs/errors.md lists every message of the program, and none that it does not have."""

import ast
import re

import pytest
from messages import ROOT, messages, pattern

PAGE = ROOT / "docs" / "errors.md"
ENTRY = re.compile(r"^- (?:warning: )?``( ?)(.+?)\1``\\?$")


def listed(page: str) -> list[str]:
    """The messages that a page lists."""
    return [found[2] for line in page.splitlines() if (found := ENTRY.match(line))]


def said() -> dict[str, str]:
    """Each message of the program that says something of its own, and a place where it is made."""
    return {m.text.strip(): f"{m.file}:{m.first}" for m in messages() if not m.is_passed_on}


def test_every_message_is_in_the_catalogue():
    lacking = [
        f"{place}: - ``{text}``"
        for text, place in said().items()
        if text not in listed(PAGE.read_text(encoding="utf-8"))
    ]
    assert not lacking, "docs/errors.md lacks these; add each with when it comes and what to do:\n" + "\n".join(lacking)


def test_every_entry_of_the_catalogue_is_a_message():
    stale = [text for text in listed(PAGE.read_text(encoding="utf-8")) if text not in said()]
    assert not stale, (
        "docs/errors.md lists these, which nothing says (any more); correct or remove them:\n" + "\n".join(stale)
    )


def test_warnings_are_marked_as_such():
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    marked = {found[2] for line in lines if line.startswith("- warning: ") and (found := ENTRY.match(line))}
    assert marked == {m.text for m in messages() if m.kind == "warning" and not m.is_passed_on}


def test_no_section_lists_a_message_twice():
    for section in PAGE.read_text(encoding="utf-8").split("\n## "):
        assert len(listed(section)) == len(set(listed(section))), section[:60]


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ('f"{path}: does not exist; correct the path"', "<path>: does not exist; correct the path"),
        ('f"{self._path}: has {count:.0f} of {x.shape[0]}"', "<path>: has <count> of <size>"),
        ('f"{path}: {GIVE}" + "; stop"', "<path>: give the generator.pt of a trained model; stop"),
    ],
)
def test_a_message_is_shown_with_what_is_filled_in(code, said):
    assert pattern(ast.parse(code, mode="eval").body, "networks.model_file") == said
