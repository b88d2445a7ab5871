"""The pages of the documentation, and the blocks of code in them."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


class Block(NamedTuple):
    """A fenced block of a page: its page and line, language and text."""

    page: str
    line: int
    language: str
    text: str

    @property
    def first(self) -> str:
        return self.text.splitlines()[0].strip()

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page; those in lists without the list's indent."""
    found, lines = [], page.read_text(encoding="utf-8").splitlines()
    place = 0
    while place < len(lines):
        fence = re.match(r"( *)(`{3,})(.*)", lines[place])
        if fence:
            end = next(i for i in range(place + 1, len(lines)) if lines[i].strip() == fence[2])
            text = "\n".join(line[len(fence[1]) :] for line in lines[place + 1 : end])
            found.append(Block(page.name, place + 1, fence[3].strip(), text))
            place = end
        place += 1
    return found


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return re.sub(r"(?ms)^ *(`{3,})[^\n]*\n.*?^ *\1$", "", page.read_text(encoding="utf-8"))


BLOCKS = [block for page in PAGES for block in blocks(page)]
