"""Where the workflow's own files are: Snakefile, rules, environments, profiles and experiments."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import microsr

PACKAGE = Path(microsr.__file__).parent


def workflow_folder() -> Path:
    """The folder of the Snakefile, rules, environments, profiles and experiments: in the installed package, or the
    clone that the package is run from.
    """
    installed = PACKAGE / "pipeline"
    return installed if installed.is_dir() else PACKAGE.parent.parent


def package_alone(folder: Path) -> Path:
    """A folder with nothing but a link to the package, to be named in PYTHONPATH.

    An environment of other packages (--sdm conda) that names it runs this microsr, and does not see what is installed
    beside it. folder: where the folder `microsr-alone` is made; several processes may do it at once.
    """
    alone = folder / "microsr-alone"
    alone.mkdir(parents=True, exist_ok=True)
    link = alone / "microsr"
    if not (link.is_symlink() and link.readlink() == PACKAGE):
        own = alone / f".{os.getpid()}"
        with contextlib.suppress(FileNotFoundError):
            own.unlink()
        own.symlink_to(PACKAGE)
        own.replace(link)
    return alone.absolute()
