"""The step that draws: the paper's comparison (Fig. 2) and network (Fig. 1) figures, and those that let a user judge a
run.

In: volumes, tables and settings. Out: <output>.png, <output>.pdf and <output>.run.json. Each figure has a module of its
own, which is loaded when the figure is drawn: all of them take seconds.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from microsr import config
from microsr.config import named_paths
from microsr.core.progress import logger
from microsr.core.provenance import write_run

TABLES = ("volumes", "metrics", "summary")
"""Kinds of table that `microsr.figures.typeset` has."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Command-line arguments of the step."""
    commands = parser.add_subparsers(dest="command", required=True, metavar="FIGURE")

    def figure(
        name: str, draw: Callable, summary: str, endings: Sequence[str] = (".png", ".pdf")
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=summary, description=summary[0].upper() + summary[1:] + ".", allow_abbrev=False
        )
        sub.add_argument(
            "--output",
            required=True,
            type=Path,
            help=f"path without extension; {', '.join(endings)} and .run.json are added",
        )
        sub.set_defaults(draw=draw, recorded_as=f"figures.{name}", endings=endings, writes=None)
        return sub

    sub = figure(
        "comparison", _comparison, "clinical CT, each method's super-resolved CT and the truth (the paper's Fig. 2)"
    )
    sub.add_argument("--clinical", required=True, type=Path, help="clinical CT with its lung mask (OME-Zarr)")
    sub.add_argument(
        "--superresolved", required=True, nargs="+", metavar="NAME=PATH", help="super-resolved CT, in panel order"
    )
    sub.add_argument("--truth", type=Path, help="truth on the super-resolved grid (OME-Zarr)")
    sub.add_argument("--title", help="title above the panels")
    sub.add_argument("--note", help="line below the panels")
    config.add_flags(sub, config.Figures)

    sub = figure("network", _network, "networks and losses as configured (the paper's Fig. 1)")
    sub.add_argument(
        "--patches",
        required=True,
        nargs=2,
        type=int,
        metavar=("CLINICAL", "MICRO"),
        help="sides of the patches, pixels",
    )
    sub.add_argument("--title", help="name of the method")
    config.add_method_flags(sub)
    config.add_flags(sub, config.Train)

    sub = figure("losses", _losses, "loss curves")
    sub.add_argument("--history", required=True, nargs="+", metavar="NAME=PATH", help="history.csv of each model")

    sub = figure("patches", _patches, "where patches were taken")
    sub.add_argument("--volume", required=True, type=Path, help="volume with its mask (OME-Zarr)")
    sub.add_argument("--index", required=True, type=Path, help="index of its patches (.csv)")

    sub = figure("domain", _domain, "clinical patches beside average-pooled uCT patches")
    sub.add_argument("--table", required=True, type=Path, help="table of `microsr domain` (.csv)")

    sub = figure("metrics", _metrics, "metrics of all methods")
    sub.add_argument("--table", required=True, type=Path, help="table of `microsr evaluate collect` (.csv)")
    sub.add_argument("--protocol", help="show all metrics of one protocol instead of the few that matter most")
    sub.add_argument("--split", default="test", choices=("test", "validation"), help="what the cases are for")

    sub = figure("validation", _validation, "the simulated lung and scanner beside the literature")
    sub.add_argument("--table", required=True, type=Path, help="table of `microsr validate` (.csv)")

    sub = figure("volumes", _volumes, "pixels, slices and pixel size of every volume (the paper's Table 1)")
    sub.add_argument("--table", required=True, type=Path, help="table of `microsr volumes table` (.csv)")

    sub = figure("typeset", _typeset, "a table for a paper, as LaTeX and Markdown", (".tex", ".md"))
    sub.add_argument("--kind", required=True, choices=TABLES, help="what the table is of")
    sub.add_argument(
        "--table",
        required=True,
        type=Path,
        help="table of `microsr volumes table` or `microsr evaluate summarise` (.csv)",
    )

    sub = figure("bronchioles", _bronchioles, "share of airways detected against their diameter")
    sub.add_argument(
        "--crossings",
        required=True,
        nargs="+",
        metavar="NAME=PATH",
        help="table (.bronchioles.csv) of `microsr evaluate metrics`; a name may come once for each case and training",
    )

    sub = figure("efficiency", _efficiency, "quality against arithmetic and time")
    sub.add_argument("--table", required=True, type=Path, help="table of `microsr evaluate collect` (.csv)")
    sub.add_argument(
        "--runs",
        required=True,
        nargs="+",
        metavar="NAME=PATH",
        help="run.json of `microsr train`; a name, method/training set, may come once for each seed",
    )
    sub.add_argument("--costs", required=True, type=Path, help="table of what each training cost, to be written (.csv)")
    sub.set_defaults(writes="costs")

    sub = figure("hallucination", _hallucination, "errors that the scanner could measure and those that it could not")
    sub.add_argument("--clinical", required=True, type=Path, help="clinical CT with its lung mask (OME-Zarr)")
    sub.add_argument("--truth", required=True, type=Path, help="truth on the super-resolved grid (OME-Zarr)")
    sub.add_argument(
        "--superresolved", required=True, nargs="+", metavar="NAME=PATH", help="super-resolved CT, in order"
    )
    sub.add_argument(
        "--maps", required=True, nargs="+", metavar="NAME=PATH", help="volumes of `microsr evaluate metrics --maps`"
    )
    config.add_flags(sub, config.Figures)

    sub = figure("tiling", _tiling, "a slice super-resolved in tiles beside the same in one piece")
    sub.add_argument("--clinical", required=True, type=Path, help="clinical CT with its lung mask (OME-Zarr)")
    sub.add_argument(
        "--models",
        nargs="+",
        default=[],
        metavar="NAME=PATH",
        help="generator.pt of each method; bicubic is always shown",
    )
    sub.add_argument("--size", type=int, help="side of the square shown, clinical pixels")
    sub.add_argument("--tile", type=int, help="side of a tile, clinical pixels")
    sub.add_argument("--table", required=True, type=Path, help="table of the differences, to be written (.csv)")
    sub.set_defaults(writes="table")
    config.add_flags(sub, config.Figures, without=["insets"])


def main(ns: argparse.Namespace) -> None:
    """Run the step from its command line."""
    started = time.time()
    settings, inputs, facts = ns.draw(ns)
    results = [ns.output.with_name(f"{ns.output.name}{ending}") for ending in ns.endings]
    results += [getattr(ns, ns.writes)] if ns.writes else []
    write_run(results, ns.recorded_as, settings, inputs, started, **facts)
    logger.info("%s%s written", ns.output, " and ".join(ns.endings))


def _comparison(ns: argparse.Namespace) -> tuple[dict[str, Any], list[Path], dict[str, Any]]:
    from microsr.figures import comparison

    settings = config.from_flags(ns, config.Figures)
    superresolved = named_paths(ns.superresolved, "superresolved")
    shown = comparison.make_comparison(
        ns.clinical, superresolved, settings, ns.output, truth=ns.truth, title=ns.title, note=ns.note
    )
    volumes = [ns.clinical, *superresolved.values(), *([ns.truth] if ns.truth else [])]
    described = settings.model_dump(mode="json") | {"title": ns.title, "note": ns.note}
    return described, volumes, shown


def _network(ns: argparse.Namespace) -> tuple[dict[str, Any], list[Path], dict[str, Any]]:
    from microsr.figures import network

    method, train = config.method_from_flags(ns), config.from_flags(ns, config.Train)
    losses = network.make_network(method, train, tuple(ns.patches), ns.output, ns.title)
    return {"method": method.model_dump(mode="json"), "train": train.model_dump(mode="json")}, [], {"losses": losses}


def _losses(ns: argparse.Namespace) -> tuple[dict[str, Any], list[Path], dict[str, Any]]:
    from microsr.figures import losses as figure_losses

    histories = named_paths(ns.history, "history")
    return {}, list(histories.values()), {"losses": figure_losses.make_losses(histories, ns.output)}


def _patches(ns: argparse.Namespace) -> tuple[dict[str, Any], list[Path], dict[str, Any]]:
    from microsr.figures import patches as figure_patches

    slices = figure_patches.make_patches(ns.volume, ns.index, ns.output)
    return {}, [ns.volume, ns.index], {"slices": slices, "slices_read": {ns.volume: slices}}


def _domain(ns: argparse.Namespace) -> tuple[dict[str, Any], list[Path], dict[str, Any]]:
    from microsr.figures import domain

    return {}, [ns.table], {"agree": domain.make_domain(ns.table, ns.output)}


def _metrics(ns: argparse.Namespace) -> tuple[dict[str, Any], list[Path], dict[str, Any]]:
    from microsr.figures import metrics as figure_metrics

    return {}, [ns.table], {"metrics": figure_metrics.make_metrics(ns.table, ns.output, ns.protocol, ns.split)}


def _validation(ns: argparse.Namespace) -> tuple[dict[str, Any], list[Path], dict[str, Any]]:
    from microsr.figures import validation

    return {}, [ns.table], {"verdicts": validation.make_validation(ns.table, ns.output)}


def _volumes(ns: argparse.Namespace) -> tuple[dict[str, Any], list[Path], dict[str, Any]]:
    from microsr.figures import volumes as figure_volumes

    return {}, [ns.table], {"volumes": figure_volumes.make_volumes(ns.table, ns.output)}


def _typeset(ns: argparse.Namespace) -> tuple[dict[str, Any], list[Path], dict[str, Any]]:
    from microsr.figures import typeset

    typeset.KINDS[ns.kind](ns.table, ns.output)
    return {"kind": ns.kind}, [ns.table], {}


def _bronchioles(ns: argparse.Namespace) -> tuple[dict[str, Any], list[Path], dict[str, Any]]:
    from microsr.figures import bronchioles

    tables = _paths_by_name(ns.crossings, "crossings")
    limits = bronchioles.make_bronchioles(tables, ns.output)
    return {}, [path for paths in tables.values() for path in paths], {"smallest_bronchiole_mm": limits}


def _efficiency(ns: argparse.Namespace) -> tuple[dict[str, Any], list[Path], dict[str, Any]]:
    from microsr.figures import efficiency

    runs = _paths_by_name(ns.runs, "runs")
    metrics = efficiency.make_efficiency(ns.table, runs, ns.output, ns.costs)
    return {}, [ns.table, *(path for paths in runs.values() for path in paths)], {"metrics": metrics}


def _paths_by_name(pairs: list[str], flag: str) -> dict[str, list[Path]]:
    """As `named_paths`, but a name may come several times."""
    found: dict[str, list[Path]] = {}
    for pair in pairs:
        for name, path in named_paths([pair], flag).items():
            found.setdefault(name, []).append(path)
    return found


def _hallucination(ns: argparse.Namespace) -> tuple[dict[str, Any], list[Path], dict[str, Any]]:
    from microsr.figures import hallucination

    settings = config.from_flags(ns, config.Figures)
    superresolved, maps = named_paths(ns.superresolved, "superresolved"), named_paths(ns.maps, "maps")
    shown = hallucination.make_hallucination(ns.clinical, ns.truth, superresolved, maps, settings, ns.output)
    return settings.model_dump(mode="json"), [ns.clinical, ns.truth, *superresolved.values(), *maps.values()], shown


def _tiling(ns: argparse.Namespace) -> tuple[dict[str, Any], list[Path], dict[str, Any]]:
    from microsr.figures import tiling

    settings = config.from_flags(ns, config.Figures)
    models = named_paths(ns.models, "models")
    size = tiling.SIZE if ns.size is None else ns.size
    tile = tiling.TILE if ns.tile is None else ns.tile
    shown = tiling.make_tiling(ns.clinical, models, settings, ns.output, ns.table, size, tile)
    described = settings.model_dump(mode="json", exclude={"insets"}) | {"size": size, "tile": tile}
    return described, [ns.clinical, *models.values()], shown
