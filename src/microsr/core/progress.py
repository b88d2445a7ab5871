"""What a person sees of a running step: lines that name the step and its share of the work, or a bar where the step is
alone.

Snakemake runs several steps at once on one terminal, where bars would overwrite one another; each then tells of itself
in whole lines, as in a log: `train proposed/pooled: step 120/2100, 3.1 steps/s, 11 min left, cycle_loss 0.123`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import time
from collections import deque
from pathlib import Path
from typing import Any

logger = logging.getLogger("microsr")

SHARED = "MICROSR_SHARED_TERMINAL"
"""Environment variable that the Snakefile sets: other steps, and Snakemake, write to the same terminal."""
LOGS = "logs"
"""Folder of an experiment's logs; below it, a log is named for its step and what the step works on."""
INTERVAL = 10.0
"""Seconds between two lines at first."""
GROWTH, LONGEST = 200.0, 30.0
"""After so many seconds the lines become rarer, in proportion to the time, and at last so many times rarer."""
RECENT = 5
"""Over so many of the last lines the speed is measured: it may change, as when another step ends."""


def start_log(step: str, log: Path | None, command: str) -> None:
    """Send messages to stderr, and to the file `log` if given, each line with the step's name (and, in the file, the
    time).

    The file begins with the command: that of a step that is killed is not empty then, which Snakemake would stop to
    read at.
    """
    logger.setLevel(logging.INFO)
    logger.handlers.clear()
    terminal = _Terminal(sys.stderr)
    terminal.setFormatter(_Named(step, label(step, log)))
    logger.addHandler(terminal)
    if log is not None:
        log.parent.mkdir(parents=True, exist_ok=True)
        file = _LogFile(log, encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
        logger.addHandler(file)
        _to_log_only(command)


def label(step: str, log: Path | None) -> str:
    """The step and what it works on, "train proposed/pooled", from its log,
    results/demo/logs/train/proposed/pooled.log.

    Where the log is no experiment's, or there is none, the step alone.
    """
    parts = () if log is None else log.with_suffix("").parts
    if LOGS not in parts:
        return step
    last = len(parts) - 1 - parts[::-1].index(LOGS)
    what = parts[last + 1 :]
    return " ".join(filter(None, [step, "/".join(what[1:] if what[:1] == (step,) else what)]))


def duration(seconds: float) -> str:
    """A time as people say it: "40 s", "12 min", "3 h 20 min", "2 d 4 h"."""
    if round(seconds) < 120:
        return f"{round(seconds)} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    if minutes < 24 * 60:
        large, small, names = *divmod(minutes, 60), ("h", "min")
    else:
        large, small, names = *divmod(round(minutes / 60), 24), ("d", "h")
    return f"{large} {names[0]}" + (f" {small} {names[1]}" if small else "")


class _Named(logging.Formatter):
    """Lines that begin with the step and what it works on; an error, which names its file, with the step alone."""

    def __init__(self, step: str, label: str) -> None:
        super().__init__(f"{label}: %(message)s")
        self._error = logging.Formatter(f"{step}: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        if record.levelno >= logging.ERROR:
            return self._error.format(record)
        return super().format(record)


class _Terminal(logging.StreamHandler):
    """Standard error. Messages go above a bar, and on a terminal a line of progress shows as many losses as a row
    holds.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write a message in one piece, so that those of other processes do not get into it."""
        with _tqdm().external_write_mode(self.stream) if _shows_bars() else contextlib.nullcontext():
            super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        """Without the last losses where all would not fit; the first stays."""
        line, note, columns = super().format(record), getattr(record, "note", ""), _columns()
        if columns is None or len(line) <= columns:
            return line
        head, pairs = line.removesuffix(note), re.findall(r"\S+ \S+", note)
        while len(pairs) > 1 and len(line) > columns:
            pairs.pop()
            line = head + " ".join([*pairs, "..."])
        return line


class _LogFile(logging.FileHandler):
    """A log that stays as it is where the disk is full: the same messages are on the terminal, and the step goes on."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Say nothing."""


class Progress:
    """Progress of `total` units: a bar where the terminal is the step's own, else a line every `interval` seconds or
    more.

    start: units that earlier attempts have done; speed and time left come from this attempt's own.
    """

    def __init__(self, total: int, unit: str, start: int = 0, interval: float = INTERVAL) -> None:
        self._total, self._unit, self._interval = total, unit.removesuffix("s"), interval
        self._done, self._first = start, start
        self._began = time.monotonic()
        self._marks = deque([(self._began, start)], maxlen=RECENT)
        self._spoken = False
        speaks = logger.isEnabledFor(logging.INFO)  # of several processes, the first one does
        self._bar = (
            _tqdm()(total=total, initial=start, unit=self._unit, mininterval=1.0) if speaks and _shows_bars() else None
        )

    def advance(self, units: int = 1, note: str = "") -> None:
        """Count `units` more; `note` says how things are (losses, say)."""
        self._done += units
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(units)
        now = time.monotonic()
        elapsed = now - self._began
        if self._done >= self._total:
            done = self._done - self._first
            line = f"{_count(done, self._unit)} in {duration(elapsed)}, {self._speed(done, elapsed)}"
            self._say(line, note, to_terminal=self._spoken)
        elif now - self._marks[-1][0] >= self._interval * min(max(1.0, elapsed / GROWTH), LONGEST):
            since, before = self._marks[0]
            took, done = now - since, self._done - before
            left = duration((self._total - self._done) * took / max(done, 1))
            line = f"{self._unit} {self._done}/{self._total}, {self._speed(done, took)}, {left} left"
            self._marks.append((now, self._done))
            self._spoken = True
            self._say(line, note)

    def close(self) -> None:
        """Leave the terminal tidy."""
        if self._bar is not None:
            self._bar.close()

    def _speed(self, done: int, seconds: float) -> str:
        """Units in a second, or seconds for a unit where that is the larger number."""
        rate = done / max(seconds, 1e-9)
        if rate >= 1:
            return f"{rate:.{int(rate < 10)}f} {self._unit}s/s"
        return f"{1 / rate:.{int(rate > 0.1)}f} s/{self._unit}"

    def _say(self, line: str, note: str, to_terminal: bool = True) -> None:
        line = f"{line}, {note}" if note else line
        if self._bar is not None or not to_terminal:
            _to_log_only(line)
        else:
            logger.info("%s", line, extra={"note": note})


def _count(number: int, unit: str) -> str:
    return f"{number} {unit}" + "s" * (number != 1)


def _tqdm() -> Any:
    """The class of the bars, which is loaded where one is shown: most steps, of a pipeline, show none."""
    from tqdm import tqdm

    return tqdm


def _shows_bars() -> bool:
    """Whether stderr is a terminal that this step has for itself."""
    return sys.stderr.isatty() and SHARED not in os.environ


def _columns() -> int | None:
    """Width of the terminal that stderr is, if it is one."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except (OSError, ValueError, AttributeError):
        return None


def _to_log_only(line: str) -> None:
    record = logger.makeRecord(logger.name, logging.INFO, "", 0, line, (), None)
    for handler in logger.handlers:
        if isinstance(handler, logging.FileHandler) and logger.isEnabledFor(logging.INFO):
            handler.emit(record)
