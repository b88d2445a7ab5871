"""The report: one HTML file with the comparison to look into, the tables and figures, and how they were made.

In: volumes, tables and figures of an experiment. Out: report.html, which needs nothing else and asks for nothing over a
network; also the two figures that only the report shows. The page is in report_page/: a template, a style sheet, a
script.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import bokeh
import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from microsr.config import named_paths
from microsr.core.csv_files import read_rows
from microsr.core.errors import UserError
from microsr.core.files import replacing
from microsr.core.progress import logger
from microsr.core.provenance import write_run
from microsr.evaluation import metric_tables
from microsr.evaluation.catalogue import PROTOCOLS, find_protocol
from microsr.evaluation.names import MODALITY_NAMES
from microsr.report.figures import show_figures
from microsr.report.provenance import PAGE, as_tree, page_version, summarise_making
from microsr.report.viewer import bokeh_item, bokeh_script, make_views, read_source, view_json

MOST_VIEWS = 6
"""Comparisons that the viewer offers; the others are figures only."""
LARGE = 15e6
"""Bytes from which on some mail servers refuse an attachment."""
VOLUME_COLUMNS = {
    "case": "Case", "modality": "Modality", "columns_px": "Columns", "rows_px": "Rows", "slices": "Slices",
    "pixel_x_mm": "Pixel, x (mm)", "pixel_y_mm": "Pixel, y (mm)", "slice_spacing_mm": "Slice distance (mm)",
    "slice_thickness_mm": "Slice thickness (mm)", "format": "Format", "spacing_from": "Size from",
}  # fmt: skip


def arguments(parser: argparse.ArgumentParser) -> None:
    """Command-line arguments of the step."""
    commands = parser.add_subparsers(dest="command", required=True, metavar="RESULT")

    def command(name: str, make: Any, summary: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=summary, description=summary[0].upper() + summary[1:] + ".", allow_abbrev=False
        )
        sub.set_defaults(make=make)
        return sub

    sub = command("page", _page, "the report itself, one HTML file")
    sub.add_argument("--experiment", required=True, help="name of the experiment")
    sub.add_argument("--note", help="what a reader must know of the data")
    sub.add_argument(
        "--view", action="append", nargs="+", default=[], metavar=("RECORD", "KIND=PATH"),
        help="a comparison: the figure's record, then clinical=PATH, method/NAME=PATH for each method, perhaps "
        "truth=PATH, and of a sampler draw/NAME=PATH and sd/NAME=PATH",
    )  # fmt: skip
    sub.add_argument("--more_views", type=int, default=0, help="comparisons that are not among them")
    sub.add_argument("--figures", required=True, nargs="+", type=Path, metavar="FIGURE", help=".png figures")
    sub.add_argument(
        "--volumes", required=True, type=Path, help="table of `microsr volumes table` (Table 1 of the paper)"
    )
    sub.add_argument("--summary", required=True, type=Path, help="table of `microsr evaluate summarise`")
    sub.add_argument("--captions", required=True, type=Path, help="folder of the figures' captions (.rst)")
    sub.add_argument(
        "--window", required=True, nargs=2, type=float, metavar=("LOW", "HIGH"), help="the figures' window, HU"
    )
    sub.add_argument(
        "--settings", nargs="*", default=[], metavar="KEY=VALUE", help="settings that are not the defaults"
    )
    sub.add_argument("--output", required=True, type=Path, help="the file to write (.html)")

    for name, summary in (
        ("calibration", "figure: histograms of the uCT before and after calibration"),
        ("panels", "figure: sample panels over each training"),
    ):
        sub = command(name, {"calibration": _calibration, "panels": _panels}[name], summary)
        sub.add_argument(
            "--output", required=True, type=Path, help="path without extension; .png, .pdf and .run.json are added"
        )
        if name == "calibration":
            sub.add_argument("--micro", required=True, nargs="+", type=Path, help="imported uCT volumes")
            sub.add_argument(
                "--clinical", nargs="*", default=[], type=Path, help="imported clinical CTs of the same cases"
            )
        else:
            sub.add_argument("--runs", required=True, nargs="+", metavar="NAME=PATH", help="run.json of each training")
            sub.add_argument("--states", required=True, nargs="+", metavar="NAME=PATH", help="folder of its states")


def main(ns: argparse.Namespace) -> None:
    """Run the step from its command line."""
    ns.make(ns)


def _page(ns: argparse.Namespace) -> None:
    started = time.time()
    sources = [read_source(words) for words in ns.view][:MOST_VIEWS]
    views, read = make_views(sources)
    figures, left_out = show_figures(ns.figures, ns.captions, as_tree(ns.settings) | {"note": ns.note})
    summary = metric_tables.read_summary(ns.summary)
    text = render(
        experiment=ns.experiment,
        note=ns.note,
        views=[view_json(view) for view in views],
        more_views=ns.more_views + max(0, len(ns.view) - MOST_VIEWS),
        window=ns.window,
        figures=figures,
        left_out=left_out,
        headline=metric_tables.tables(summary),
        protocols=protocols(summary),
        volumes=table_1(ns.volumes),
        settings=[setting.partition("=")[::2] for setting in ns.settings],
        how=summarise_making([ns.summary, ns.volumes, *(source.record for source in sources)]),
    )
    with replacing(ns.output) as temporary:
        temporary.write_text(text, encoding="utf-8")
    records = [source.record for source in sources]
    inputs = [*read, *records, *ns.figures, ns.volumes, ns.summary]
    settings = {"experiment": ns.experiment, "note": ns.note, "window_hu": ns.window, "changed": ns.settings}
    write_run(ns.output, "report", settings, inputs, started, slices_read=read, page=page_version())
    size = ns.output.stat().st_size
    logger.info("%s written, %.1f MB", ns.output, size / 1e6)
    if size > LARGE:
        logger.warning("%s is larger than %.0f MB: too large for some mail servers", ns.output, LARGE / 1e6)


def render(**facts: Any) -> str:
    """The page; the same facts give the same text. facts: see page.html.j2."""
    environment = Environment(
        loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("page.html.j2")
    views = facts.pop("views")
    titles = [{key: view[key] for key in ("title", "trainingSet")} for view in views]
    return page.render(
        **facts,
        views=titles,
        views_json=_for_script(views),
        item_json=_for_script(bokeh_item(facts["window"])),
        style=Markup((PAGE / "page.css").read_text(encoding="utf-8")),
        script=Markup((PAGE / "page.js").read_text(encoding="utf-8")),
        bokeh_script=Markup(bokeh_script()),
        bokeh_version=bokeh.__version__,
        still=next((figure for figure in facts["figures"] if figure.kind == "comparison"), None),
        of=lambda section: [figure for figure in facts["figures"] if figure.section == section],
        caption=lambda figure: Markup(figure.caption),
    )


def protocols(summary: pd.DataFrame) -> list[dict[str, Any]]:
    """Each protocol that was evaluated: "key", "title", "reading" (how to read it) and its "tables"."""
    there = [find_protocol(key) for key in dict.fromkeys(summary["protocol"])]
    return [
        {"key": protocol.key, "title": protocol.title, "reading": protocol.reading}
        | {"tables": metric_tables.tables(summary, protocol.key)}
        for protocol in sorted(there, key=PROTOCOLS.index)
    ]


def table_1(path: Path) -> tuple[list[str], list[list[str]]]:
    """Head and rows of the table of volumes, as text.

    Raises
    ------
    UserError
        The file is no such table.
    """
    found = read_rows(
        path, VOLUME_COLUMNS, "no table of volumes", "microsr volumes table", dtype=str, keep_default_na=False
    )
    found["modality"] = found["modality"].map(lambda name: MODALITY_NAMES.get(name, name))
    kept = [name for name in VOLUME_COLUMNS if (found[name] != "").any()]
    return [VOLUME_COLUMNS[name] for name in kept], [[cell or "–" for cell in row] for row in found[kept].to_numpy()]


def _for_script(value: Any) -> Markup:
    """JSON that may stand inside a script element."""
    return Markup(json.dumps(value, ensure_ascii=True, separators=(",", ":")).replace("<", "\\u003c"))


def _calibration(ns: argparse.Namespace) -> None:
    from microsr.report.calibration import make_calibration  # only here: the page needs none of it

    started = time.time()
    read = make_calibration(ns.micro, ns.clinical, ns.output)
    result = ns.output.with_name(f"{ns.output.name}.png")
    write_run(result, "report.calibration", {}, [*ns.micro, *ns.clinical], started, slices_read=read)


def _panels(ns: argparse.Namespace) -> None:
    from microsr.report.panels import make_panels  # only here: TensorBoard takes a second to load

    started = time.time()
    runs, states = named_paths(ns.runs, "runs"), named_paths(ns.states, "states")
    if set(runs) != set(states):
        raise UserError("--states: must name the same trainings as --runs")
    steps = make_panels(runs, states, ns.output)
    write_run(
        ns.output.with_name(f"{ns.output.name}.png"), "report.panels", {}, list(runs.values()), started, steps=steps
    )
