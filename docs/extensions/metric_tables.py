"""The tables of docs/metrics.md, from the catalogue of metrics: `python docs/extensions/metric_tables.py` writes them
into the page.

They are in the page itself, as it is read on GitHub too; tests/docs tells whether they are current.
"""

import re
from pathlib import Path

from microsr.evaluation.catalogue import METRICS, PROTOCOLS

PAGE = Path(__file__).parents[1] / "metrics.md"
HEAD = "| metric | unit | best | what it is | what fools it |\n|---|---|---|---|---|\n"


def table(protocol: str) -> str:
    """A protocol's table in Markdown, a row for each metric."""
    rows = (
        f"| `{m.key}` | {m.unit.replace('um', 'µm')} | {m.better.removeprefix('best: ')} | {m.name}. {m.about} | "
        f"{m.fooled} |\n"
        for m in METRICS
        if m.protocol == protocol
    )
    return HEAD + "".join(rows)


def renewed(page: str) -> str:
    """The page with the table of each protocol under the heading of its name.

    Raises
    ------
    ValueError
        A protocol has no heading, or no table under it.
    """
    for protocol in PROTOCOLS:
        section = re.compile(rf"(^## {protocol.key}\n(?:(?!^## |^\|).*\n)*)(?:^\|.*\n)+", re.MULTILINE)
        page, number = section.subn(lambda found, key=protocol.key: found[1] + table(key), page)
        if number != 1:
            raise ValueError(f"{PAGE}: no table under the heading '{protocol.key}'")
    return page


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
