"""A folder for a study of one's own: `microsr new`.

In: a name. Out: a folder with the settings, the sheet, the profiles, the experiments of the workflow to lay over the
settings or to copy, and a Snakefile that names the workflow of the installed package.
"""

from __future__ import annotations

import argparse
import re
import shutil
from pathlib import Path

from microsr.config.section import NAME
from microsr.core.errors import UserError
from microsr.core.files import replacing
from microsr.core.folders import PACKAGE, workflow_folder
from microsr.core.progress import logger

TEMPLATE = Path(__file__).parent / "study"
"""Files of a study; in them STUDY stands for its name, and gitignore is without its dot."""
UNNAMED = "study"
"""The name of an experiment whose folder has a name that no experiment can have."""
SCHEMA = "../src/microsr/config/schema.json"
"""What the experiments of a clone name as the schema of the settings, for editors."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr new`."""
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the folder to make")


def main(namespace: argparse.Namespace) -> None:
    """Run `microsr new`."""
    make_study(namespace.folder)
    folder = namespace.folder
    logger.info(
        "%s is made; README.md in it says what each file is. The first run needs no data:\n  cd %s\n  microsr run -n\n"
        "  microsr run", folder, folder
    )  # fmt: skip


def make_study(folder: Path) -> None:
    """Make the folder of a study. It is there whole or not at all.

    Raises
    ------
    UserError
        The folder is there already, or cannot be written.
    """
    if folder.exists():
        raise UserError(f"{folder}: is there already, and nothing is overwritten; name a new folder")
    name = folder.absolute().name
    with replacing(folder) as temporary:
        temporary.mkdir()
        for file in sorted(TEMPLATE.iterdir()):
            text = file.read_text(encoding="utf-8").replace("STUDY", name if re.fullmatch(NAME, name) else UNNAMED)
            target = temporary / (".gitignore" if file.name == "gitignore" else file.name)
            target.write_text(text, encoding="utf-8")
        workflow = workflow_folder()
        shutil.copytree(workflow / "profiles", temporary / "profiles")
        shutil.copy(PACKAGE / "config" / "schema.json", temporary / "schema.json")
        (temporary / "experiments").mkdir()
        for file in sorted((workflow / "experiments").iterdir()):
            text = file.read_text(encoding="utf-8").replace(SCHEMA, "../schema.json")
            (temporary / "experiments" / file.name).write_text(text, encoding="utf-8")
