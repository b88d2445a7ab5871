"""One Snakemake at a time for an experiment, by a lock that dies with its process.

Snakemake's own lock outlives a kill, and each Snakemake that ends in a folder takes the locks of the others there away.
"""

from __future__ import annotations

import atexit
import contextlib
import socket
from pathlib import Path

from microsr.core.errors import UserError
from microsr.core.files import explain_errors, lock, unlock

RUNNING = ".running"
"""The locked file in an experiment's results; it is left by a Snakemake that was killed."""
SUBMITS = ", which submits jobs"
"""In it, of one whose jobs may outlive it."""


def claim(results: Path, submits: bool = False) -> None:
    """Keep other Snakemakes from the experiment whose results are in the folder `results` until this process ends.

    submits: whether its jobs run on other machines, and so outlive it.

    Raises
    ------
    UserError
        One is running, or the folder cannot be written.
    """
    with explain_errors(results / RUNNING):
        results.mkdir(parents=True, exist_ok=True)
        held = lock(results / RUNNING, f"the experiment in {results} is being run", SUBMITS if submits else "")
    atexit.register(unlock, held)


def drop_stale_locks(results: Path, locks: Path = Path(".snakemake/locks")) -> bool:
    """Remove the locks of Snakemake's own that a killed one left for an experiment; whether there were any.

    results: folder of the experiment, beside those of the others. Only what is certain is removed: the killed one ran
    on this machine (another's locks may not be seen here), with its jobs, is dead, and locked files of this experiment
    alone.
    """
    running = results / RUNNING
    found = []
    with contextlib.suppress(UserError, OSError):  # it lives, or there is none
        if not running.read_text(encoding="utf-8").strip().endswith(f" on {socket.gethostname()}"):
            return False
        stream = lock(running, "")
        try:
            found = [file for file in locks.glob("*.lock") if _of_this_alone(file, results)]
            for file in found:
                file.unlink()
        finally:
            unlock(stream)
    return bool(found)


def _of_this_alone(file: Path, results: Path) -> bool:
    """Whether a lock names results of this experiment, and of no other."""
    named = [line for line in file.read_text(encoding="utf-8").splitlines() if line.startswith(f"{results.parent}/")]
    return bool(named) and all(line.startswith(f"{results}/") for line in named)
