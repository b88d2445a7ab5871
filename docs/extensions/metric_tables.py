"""The tables of docs/metrics.md, from the catalogue of metrics: `python docs/extensions/metric_tables.py` writes them
into the page.

They are in the page itself, as it is read on GitHub too; tests/docs tells whether they are current.
"""

import re
from pathlib import Path

from microsr.evaluation.catalogue import CANDIDATES, METRICS, PROTOCOLS

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


def claims() -> str:
    """What each metric makes of the images whose faults are known, as the catalogue claims it, in Markdown."""
    head = "".join(f" {name.replace('_', ' ')} |" for name in CANDIDATES)
    rows = (
        f"| `{m.key}` |"
        + "".join(" worse |" if name in m.sees else " **fooled** |" if name in m.blind else " |" for name in CANDIDATES)
        + "\n"
        for m in METRICS
        if m.sees or m.blind
    )
    return f"| metric |{head}\n|---|{'---|' * len(CANDIDATES)}\n" + "".join(rows)


def renewed(page: str) -> str:
    """The page with the table of each protocol under the heading of its name, and that of the claims.

    Raises
    ------
    ValueError
        A protocol has no heading, or no table under it.
    """
    parts = {f"## {protocol.key}": table(protocol.key) for protocol in PROTOCOLS}
    parts |= {"### What each metric sees": claims()}
    for heading, text in parts.items():
        section = re.compile(rf"(^{heading}\n(?:(?!^## |^\|).*\n)*)(?:^\|.*\n)+", re.MULTILINE)
        page, number = section.subn(lambda found, text=text: found[1] + text, page)
        if number != 1:
            raise ValueError(f"{PAGE}: no table under the heading '{heading.lstrip('# ')}'")
    return page


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
