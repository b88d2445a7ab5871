"""Which messages to the user the tests provoked: a complete run fails if there are some that were never met.

Each worker notes, in a folder that all share, where in src/microsr a UserError was made or a warning logged. What the
messages are, tests/messages.py finds in the code. A run of a part of the tests is not judged. Of tests that start a
process of their own only what Snakemake says counts.
"""

import logging
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from messages import Message, messages
from workflows import Workflow

from microsr.core.errors import UserError

NOTES = "provoked"
"""Attribute of pytest's configuration, and name for its workers: the folder of the notes."""
UNPROVOKED = "unprovoked"
"""Attribute of pytest's configuration: messages that no test of a complete run met."""


class Notes:
    """The messages met in this process, each written down when it is met first."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._left = list(messages())

    def error(self, made: type, *arguments: object) -> None:
        """A UserError that is being made, two calls below this one."""
        frame = sys._getframe(2)
        text = str(arguments[0]) if arguments else ""
        self._met(Path(frame.f_code.co_filename), frame.f_lineno, text)

    def warning(self, record: logging.LogRecord) -> bool:
        """A filter of the log, which lets everything pass."""
        if record.levelno >= logging.WARNING:
            self._met(Path(record.pathname), record.lineno, record.getMessage())
        return True

    def heard(self, text: str) -> None:
        """What a Snakemake said that a test ran."""
        for line in text.splitlines():
            if "error: " in line:  # not all of it: matching takes long in what is long
                self._met(Path(), 0, line[:2000])

    def _met(self, file: Path, line: int, text: str) -> None:
        for message in [message for message in self._left if message.met(file, line, text)]:
            self._left.remove(message)
            (self._folder / message.name).touch()


def pytest_configure(config: pytest.Config) -> None:
    """Begin to note, in the folder of the process that started this one, if one did."""
    workers = getattr(config, "workerinput", None)
    folder = Path(workers[NOTES] if workers else tempfile.mkdtemp(prefix="provoked."))
    setattr(config, NOTES, folder)
    notes = Notes(folder)
    make = UserError.__init__

    def noting(self: UserError, *arguments: object) -> None:
        notes.error(type(self), *arguments)
        make(self, *arguments)

    UserError.__init__ = noting
    logging.getLogger("microsr").addFilter(notes.warning)
    run = Workflow.snakemake

    def heard(workflow: Workflow, *arguments: str) -> subprocess.CompletedProcess:
        done = run(workflow, *arguments)
        notes.heard(done.stdout)
        return done

    Workflow.snakemake = heard


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node) -> None:
    """Tell a worker of pytest-xdist the folder."""
    node.workerinput[NOTES] = str(getattr(node.config, NOTES))


def unprovoked(folder: Path) -> list[Message]:
    """The messages that are in no note."""
    met = {note.name for note in folder.iterdir()}
    return [message for message in messages() if message.name not in met]


def is_complete(config: pytest.Config) -> bool:
    """Whether all tests are run: none is named, none left out."""
    options = config.option
    chosen = [options.keyword, options.markexpr, options.deselect, options.ignore, options.ignore_glob]
    chosen += [getattr(options, "lf", False), getattr(options, "collectonly", False)]
    named = config.args_source is not pytest.Config.ArgsSource.TESTPATHS
    return not named and not any(chosen)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a complete run for what it did not meet."""
    config = session.config
    if hasattr(config, "workerinput"):
        return
    missing = unprovoked(getattr(config, NOTES)) if is_complete(config) else []
    setattr(config, UNPROVOKED, missing)
    if missing and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    shutil.rmtree(getattr(config, NOTES), ignore_errors=True)


def pytest_terminal_summary(terminalreporter) -> None:
    """List what was not met."""
    if missing := getattr(terminalreporter.config, UNPROVOKED, []):
        terminalreporter.section("messages that no test provoked", red=True)
        for message in missing:
            terminalreporter.line(f"{message.file}:{message.first}: {message.text}")
        terminalreporter.line("provoke each in tests/errors; one that cannot be met is none: remove it")
