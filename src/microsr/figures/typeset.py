"""Tables for a paper, in LaTeX (booktabs) and Markdown: the volumes (Zheng et al. 2020, Table 1) and the summary of the
metrics.

In: volumes.csv or summary.csv. Out: the same as <output>.tex, to be \\input, and <output>.md. Of the metrics, each has
its unit and its direction, and a method that is better than all others beyond chance is bold, as in the report; below a
mean stands its 95 % interval, where there is one.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

import pandas as pd

from microsr.core.csv_files import read_rows
from microsr.core.files import replacing
from microsr.evaluation.catalogue import find_protocol
from microsr.evaluation.metric_tables import Cell, Row, Table, read_summary, tables
from microsr.evaluation.names import MODALITY_NAMES
from microsr.figures.figure import Record

COLUMNS = {
    "Case": "case",
    "Modality": "modality",
    "Pixels": "columns_px",
    "Slices": "slices",
    "Pixel size (µm)": "pixel_x_mm",
    "Slice spacing (µm)": "slice_spacing_mm",
    "Slice thickness (µm)": "slice_thickness_mm",
}
"""Heading of each column of Table 1, and the column of volumes.csv that it begins with."""
NEEDED = (
    "case", "modality", "columns_px", "rows_px", "slices", "pixel_x_mm", "pixel_y_mm", "slice_spacing_mm",
    "slice_thickness_mm",
)  # fmt: skip
ARROWS = {"↑": r"$\uparrow$", "↓": r"$\downarrow$"}
ESCAPES = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "−": "$-$", "∞": r"$\infty$", "×": r"$\times$", "µ": r"\textmu{}", "–": "--", "²": r"$^2$", "³": r"$^3$", **ARROWS,
}  # fmt: skip


def read_volumes(path: Path) -> pd.DataFrame:
    """Table 1 as text, with the headings COLUMNS: pixels as columns × rows, lengths in µm, "–" where a header says
    nothing.

    Raises
    ------
    UserError
        The file is no table of volumes.
    """
    found = read_rows(path, NEEDED, "no table of volumes", "microsr volumes table", dtype={"case": str})
    shown = {
        "Case": found["case"],
        "Modality": found["modality"].map(lambda name: MODALITY_NAMES.get(name, name)),
        "Pixels": [f"{c} × {r}" for c, r in zip(found["columns_px"], found["rows_px"], strict=True)],
        "Slices": found["slices"].astype(str),
        "Pixel size (µm)": [
            micrometres(x) if micrometres(x) == micrometres(y) else f"{micrometres(x)} × {micrometres(y)}"
            for x, y in zip(found["pixel_x_mm"], found["pixel_y_mm"], strict=True)
        ],
        "Slice spacing (µm)": found["slice_spacing_mm"].map(micrometres),
        "Slice thickness (µm)": found["slice_thickness_mm"].map(micrometres),
    }
    return pd.DataFrame(shown)[list(COLUMNS)]


def micrometres(millimetres: float) -> str:
    """A length in µm with four digits at most; "–" for one that is not known."""
    return f"{1000 * millimetres:.4g}" if pd.notna(millimetres) else "–"


def escape_latex(text: str) -> str:
    """Text as LaTeX sets it: special characters escaped, signs that its fonts lack as commands. Nothing is escaped
    twice.
    """
    return re.sub("|".join(map(re.escape, ESCAPES)), lambda found: ESCAPES[found[0]], text)


def typeset_volumes(table: Path, output: Path) -> None:
    """Write <output>.tex and <output>.md of volumes.csv; output: path without extension."""
    shown = read_volumes(table)
    _write(output, ".tex", latex(shown, "llrrrrr"))
    _write(output, ".md", markdown(shown, ("left", "left", *("right",) * 5)))


def typeset_metrics(table: Path, output: Path) -> None:
    """Write <output>.tex and <output>.md of summary.csv: for each training set, the metrics that matter most."""
    _typeset(read_summary(table), [None], output)


def typeset_summary(table: Path, output: Path) -> None:
    """Write <output>.tex and <output>.md of summary.csv: for each protocol and training set, all metrics."""
    summary = read_summary(table)
    _typeset(summary, list(dict.fromkeys(summary["protocol"])), output)


def _typeset(summary: pd.DataFrame, protocols: list[str | None], output: Path) -> None:
    tex, words = [], []
    for protocol in protocols:
        for found in tables(summary, protocol):
            title = _title(found, protocol)
            tex.append(f"% {title}\n" + latex(_latex_rows(found), "l" + "c" * len(found.methods), escape=False))
            words.append(
                f"### {title}\n\n"
                + markdown(_markdown_rows(found), ("left", *("right",) * len(found.methods)), escape=False)
            )
    _write(output, ".tex", "\n".join(tex))
    _write(output, ".md", "\n".join(words))


def latex(table: pd.DataFrame, alignment: str, escape: bool = True) -> str:
    """A tabular with the rules of booktabs; escape: False where the cells are LaTeX already."""
    if escape:
        table = table.map(escape_latex)
        table.columns = [escape_latex(name) for name in table.columns]
    return table.to_latex(index=False, escape=False, column_format=alignment)


def markdown(table: pd.DataFrame, alignment: tuple[str, ...], escape: bool = True) -> str:
    """A pipe table as GitHub and pandoc read it; escape: False where the cells are Markdown already."""
    if escape:
        table = table.map(_escape_markdown)
        table.columns = [_escape_markdown(name) for name in table.columns]
    return table.to_markdown(index=False, tablefmt="pipe", colalign=alignment, disable_numparse=True) + "\n"


def _escape_markdown(text: str) -> str:
    """Text with every sign of Markdown escaped."""
    return re.sub(r"([|`_*\\<])", r"\\\1", text)


KINDS = {"volumes": typeset_volumes, "metrics": typeset_metrics, "summary": typeset_summary}


def _title(table: Table, protocol: str | None) -> str:
    name = "What matters most" if protocol is None else find_protocol(protocol).title
    trained = "" if table.training_set in ("pooled", "none") else f", {table.training_set}"
    return f"{name}{trained}: {table.seeds} training{'s' * (table.seeds != 1)}, {table.cases_in_words}"


def _label(row: Row) -> str:
    arrow = next((sign for sign in ARROWS if row.better.startswith(sign)), "")
    return f"{row.name}{f' ({row.unit})' if row.unit else ''}{f' {arrow}' if arrow else ''}"


def _latex_rows(table: Table) -> pd.DataFrame:
    def cell(cell: Cell) -> str:
        mean = rf"\textbf{{{escape_latex(cell.mean)}}}" if cell.best else escape_latex(cell.mean)
        return (
            rf"\begin{{tabular}}{{@{{}}c@{{}}}}{mean}\\{{\footnotesize {escape_latex(cell.interval)}}}\end{{tabular}}"
            if cell.interval
            else mean
        )

    rows = [(escape_latex(_label(row)), *map(cell, row.cells)) for row in table.rows]
    return pd.DataFrame(rows, columns=["Metric", *map(escape_latex, table.methods)])


def _markdown_rows(table: Table) -> pd.DataFrame:
    def cell(cell: Cell) -> str:
        mean = f"**{cell.mean}**" if cell.best else cell.mean
        return f"{mean} ({cell.interval})" if cell.interval else mean

    rows = [(_escape_markdown(_label(row)), *map(cell, row.cells)) for row in table.rows]
    return pd.DataFrame(rows, columns=["Metric", *map(_escape_markdown, table.methods)])


def _write(output: Path, ending: str, text: str) -> None:
    with replacing(output.with_name(f"{output.name}{ending}")) as temporary:
        temporary.write_text(text, encoding="utf-8")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr figures typeset`."""
    parser.add_argument("--kind", required=True, choices=tuple(KINDS), help="what the table is of")
    parser.add_argument(
        "--table",
        required=True,
        type=Path,
        help="table of `microsr volumes table` or `microsr evaluate summarise` (.csv)",
    )


def draw(ns: argparse.Namespace) -> Record:
    """Set the table from its command line."""
    KINDS[ns.kind](ns.table, ns.output)
    return Record({"kind": ns.kind}, [ns.table], {})
