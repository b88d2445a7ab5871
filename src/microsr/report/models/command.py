"""The command `microsr export`: of a volume (`inference.export`), or of a model (`report.models.export`)."""

from __future__ import annotations

import argparse
from pathlib import Path

from microsr.core.errors import UserError
from microsr.inference import export as volumes

OF_VOLUMES = ("format", "slices", "source", "series")
OF_MODELS = ("title", "license", "trained_on", "calibration")


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr export`."""
    volumes.arguments(parser)
    of_models = parser.add_argument_group("a model, for its card")
    of_models.add_argument("--title", help="what it is called (default: the output's name)")
    of_models.add_argument(
        "--license", help="of the model, as SPDX says it (MIT, CC-BY-4.0); default: none, the owners of the data decide"
    )
    of_models.add_argument("--trained_on", help="one sentence on the data, in place of what their records say")
    of_models.add_argument(
        "--calibration",
        type=Path,
        nargs="+",
        help="tables of `microsr evaluate uncertainty` of this model, one a case, or put together",
    )


def main(namespace: argparse.Namespace) -> None:
    """Run `microsr export`."""
    given = namespace.volume
    is_model = given.is_file()  # a volume of the working format is a folder
    for name in OF_VOLUMES if is_model else OF_MODELS:
        if getattr(namespace, name) is not None:
            what, other = ("model", "volume") if is_model else ("volume", "model")
            raise UserError(f"{given}: is a {what}, and --{name} is for a {other}; leave it out")
    if not is_model:
        volumes.main(namespace)
        return
    from microsr.report.models.export import export_model

    words = {name: getattr(namespace, name) for name in OF_MODELS}
    export_model(given, namespace.output, **words)
