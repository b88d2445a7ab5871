"""One training in a state folder at a time, and what an attempt leaves for the next: whether trying again is of use."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from microsr.core.errors import UserError
from microsr.core.files import hold_lock
from microsr.core.progress import logger
from microsr.core.provenance import write_atomically
from microsr.training.monitor import DivergedError


@contextlib.contextmanager
def sole_attempt(folder: Path, number: int) -> Iterator[None]:
    """The context in which this process trains with the states in `folder`; a warning says if the last ones came to no
    new state.

    number: of the attempts at the same job, from 1. A training that diverged does so again: the attempts after it end
    with its error at once, and only a new first one tries again.

    Raises
    ------
    UserError
        Another process trains there, or the attempt before this one diverged.
    """
    note = folder / "attempt.json"
    with hold_lock(folder / "lock", f"the training in {folder} is being done"):
        before = _read(note)
        if number > 1 and "diverged" in before:
            logger.info("not tried again, as the same settings diverge again; a new start of the workflow tries")
            raise UserError(before["diverged"])
        newest = max((path.name for path in folder.glob("step-*.pt")), default="its start")
        in_vain = before.get("in_vain", 0) + 1 if before.get("from") == newest else 0
        if in_vain > 1:
            logger.warning(
                "%d attempts in a row were ended before they saved a state (this one goes on from %s); if it was for "
                "want of memory or time, ask for more, or lower compute.checkpoint_minutes",
                *(in_vain, newest.removesuffix(".pt")),
            )
        _write(note, {"from": newest, "in_vain": in_vain})
        try:
            yield
        except DivergedError as error:
            _write(note, {"diverged": str(error)})
            raise
        note.unlink(missing_ok=True)


def _read(note: Path) -> dict[str, Any]:
    try:
        found = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(note: Path, content: dict[str, Any]) -> None:
    with contextlib.suppress(UserError, OSError):  # a full disk: the training is worth more than this note
        write_atomically(note, json.dumps(content) + "\n")
