"""The step that draws: the paper's comparison (Fig. 2) and network (Fig. 1) figures, and those that let a user judge a
run.

In: volumes, tables and settings. Out: <output>.png, <output>.pdf and <output>.run.json. Each figure has a module of its
own (`core.registry.figures`), which is loaded when the figure is drawn: all of them take seconds.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from microsr.core.progress import logger
from microsr.core.provenance import write_run
from microsr.core.registry.figures import FIGURES
from microsr.core.subcommands import add_subcommand, add_subcommands


def arguments(parser: argparse.ArgumentParser) -> None:
    """Command-line arguments of the step."""
    commands = add_subcommands(parser, "FIGURE")
    for name, figure in FIGURES.items():
        endings = ", ".join(figure.endings)
        add_subcommand(commands, name, figure.help, figure.module).add_argument(
            "--output", required=True, type=Path, help=f"path without extension; {endings} and .run.json are added"
        )


def main(ns: argparse.Namespace) -> None:
    """Run the step from its command line."""
    started, figure = time.time(), FIGURES[ns.command]
    record = ns.module.draw(ns)
    results = [ns.output.with_name(f"{ns.output.name}{ending}") for ending in figure.endings]
    results += [getattr(ns, figure.writes)] if figure.writes else []
    write_run(results, f"figures.{ns.command}", record.settings, record.inputs, started, **record.facts)
    logger.info("%s%s written", ns.output, " and ".join(figure.endings))
