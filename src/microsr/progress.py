"""What a person sees of a running step: a progress bar on a terminal, plain lines in a log, one line for an error."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path

from tqdm import tqdm

logger = logging.getLogger("microsr")


def start_log(step: str, log: Path | None, command: str) -> None:
    """Send messages to stderr, and to the file `log` if given, each line with the step's name (and, in the file, the time).

    The file begins with the command: that of a step that is killed is not empty then, which Snakemake would stop to read at.
    """
    logger.setLevel(logging.INFO)
    logger.handlers.clear()
    terminal = logging.StreamHandler(sys.stderr)
    terminal.setFormatter(logging.Formatter(f"{step}: %(message)s"))
    logger.addHandler(terminal)
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        file = _LogFile(log, encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        logger.addHandler(file)
        _to_log_only(command)


class _LogFile(logging.FileHandler):
    """A log that stays as it is where the disk is full: the same messages are on the terminal, and the step goes on."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Say nothing."""


class Progress:
    """Progress of `total` units: a bar where stderr is a terminal, else a line every `interval` seconds."""

    def __init__(self, total: int, unit: str, start: int = 0, interval: float = 30.0) -> None:
        self._total, self._unit, self._interval = total, unit, interval
        self._done, self._first = start, start
        self._began = self._spoken = time.monotonic()
        self._bar = tqdm(total=total, initial=start, unit=unit, mininterval=1.0) if sys.stderr.isatty() else None

    def advance(self, units: int = 1, note: str = "") -> None:
        """Count `units` more; `note` says how things are (losses, say)."""
        self._done += units
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(units)
        now = time.monotonic()
        if now - self._spoken < self._interval and self._done < self._total:
            return
        self._spoken = now
        rate = (self._done - self._first) / max(now - self._began, 1e-9)
        left = (self._total - self._done) / max(rate, 1e-9)
        line = f"{self._done}/{self._total} {self._unit}, {rate:.2f} {self._unit}/s, {left:.0f} s left"
        _to_log_only(f"{line}  {note}") if self._bar is not None else logger.info("%s  %s", line, note)

    def close(self) -> None:
        """Leave the terminal tidy."""
        if self._bar is not None:
            self._bar.close()


def _to_log_only(line: str) -> None:
    record = logger.makeRecord(logger.name, logging.INFO, "", 0, line, (), None)
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.emit(record)
