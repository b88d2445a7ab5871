"""The command `microsr <step> ...`: one sub-command for each step of the pipeline, which the Snakemake rules call.

A step's module offers `arguments(parser)` and `main(namespace)`; it is imported only when asked for.
"""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import select
import shlex
import signal
import sys
from pathlib import Path

from microsr.core import code_version
from microsr.core.errors import UserError
from microsr.core.files import explain, explain_errors, nearest_folder
from microsr.core.progress import logger, start_log
from microsr.core.provenance import describe_software

STEPS = {
    "demo": "draw a picture of what a sampler makes of a simulated lung, in a minute",
    "new": "make a folder for a study: settings, case sheet, profiles",
    "run": "run the workflow in the folder of a study; the arguments are Snakemake's",
    "simulate": "make a simulated lung, its clinical CT and its uCT",
    "volumes": "import a CT or uCT volume: HU, geometry, mask",
    "scan": "scan a uCT volume as a clinical scanner would",
    "patches": "extract training patches",
    "pairs": "scan the uCT patches as the clinical scanner would, for methods that learn from pairs",
    "domain": "compare clinical patches with pooled uCT patches before training",
    "scanner": "measure noise, streaks and slice profile of clinical CTs before training",
    "train": "train a method: the modified CycleGAN, or another kind",
    "superresolve": "super-resolve a clinical CT",
    "gather": "put the parts of a super-resolved volume together that several jobs made",
    "channels": "lay volumes of one scan together as the channels of one OME-Zarr, for viewers",
    "export": "write a volume as NIfTI, NRRD, MetaImage, DICOM or OME-Zarr, or a model as safetensors with its card",
    "info": "say what a scan, volume, patch set or model is",
    "provenance": "say how a result was made, back to the input files",
    "validate": "measure the simulated lung and scanner beside the literature",
    "features": "learn from simulated tissues what describes lung texture",
    "evaluate": "compute metrics of a super-resolved CT",
    "figures": "draw the figures",
    "report": "make one HTML file of an experiment to look into and to send",
}
MODULES = code_version.STEPS | {
    "demo": "microsr.demo",
    "new": "microsr.workflow.new",
    "run": "microsr.workflow.run",
    "export": "microsr.report.models.command",
    "info": "microsr.info",
    "provenance": "microsr.report.lineage",
}
"""Where a step's commands are, imported when they are asked for."""


def main(argv: list[str] | None = None) -> None:
    """Run one step; exit status 1 with one line on stderr if it fails."""
    argv = (sys.argv[1:] if argv is None else argv) or ["--help"]
    parser = argparse.ArgumentParser(prog="microsr", description="Micro-CT-level super-resolution of clinical lung CT.")
    parser.add_argument(
        "--version", action=_Version, nargs=0, help="say what an issue needs: versions, commit, machine"
    )
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")
    for step, summary in STEPS.items():
        sub = steps.add_parser(
            step, help=summary, description=summary[0].upper() + summary[1:] + ".", allow_abbrev=False
        )
        if argv[:1] == [step] != ["run"]:
            common = argparse.ArgumentParser(add_help=False)
            common.add_argument("--log", type=Path, help="file that also gets the messages")
            common.add_argument("--debug", action="store_true", help="show the traceback of an error")
            module = importlib.import_module(MODULES[step])
            module.arguments(sub)
            _add_everywhere(sub, common)
    if argv[:1] == ["run"]:  # all that follows is Snakemake's
        module = importlib.import_module(MODULES["run"])
        namespace = argparse.Namespace(step="run", arguments=argv[1:], log=None, debug=False)
    else:
        namespace = parser.parse_args(argv)
    output = getattr(namespace, "output", None)
    try:
        with explain_errors(namespace.log or Path()):
            start_log(namespace.step, namespace.log, shlex.join(["microsr", *argv]))
        if output is not None:
            _check_writable(output)
        module.main(namespace)
    except UserError as error:
        _fail(str(error), namespace)
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _hung_up():
            sys.exit(128 + signal.SIGPIPE)
        _fail((output and explain(error, output)) or f"{type(error).__name__}: {error}", namespace)
    except MemoryError as error:
        _fail(f"{type(error).__name__}: {error}", namespace)
    except KeyboardInterrupt:
        _fail("interrupted", namespace, status=130)
    except Exception as error:
        where = f"; the traceback is in {namespace.log}" if namespace.log else "; --debug shows the traceback"
        for handler in logger.handlers[1:]:
            handler.emit(logger.makeRecord(logger.name, 40, "", 0, "traceback", (), sys.exc_info()))
        _fail(f"unexpected {type(error).__name__}: {error}{where}", namespace)


class _Version(argparse.Action):
    """Says what `describe_software` says, which is gathered only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        """End with it."""
        print(describe_software())
        parser.exit()


def _add_everywhere(parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    """Add the common options to `parser`, or to its sub-commands if it has some."""
    subparsers = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    for target in subparsers[0].choices.values() if subparsers else [parser]:
        for action in common._actions:
            target._add_action(action)


def _check_writable(output: Path) -> None:
    """Stop before the work, not after it, where its result could not be written."""
    folder = nearest_folder(output)
    if not folder.is_dir():
        raise UserError(f"{output}: {folder} is a file, not a folder; give another name")
    if not os.access(folder, os.W_OK):
        code = errno.EROFS if os.statvfs(folder).f_flag & os.ST_RDONLY else errno.EACCES
        raise UserError(explain(OSError(code, os.strerror(code)), output))


def _hung_up() -> bool:
    """Whether who reads the standard output has had enough, as `head` after its lines; the rest then goes nowhere."""
    poll = select.poll()
    poll.register(sys.stdout, 0)
    if not any(event & select.POLLERR for _, event in poll.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def _fail(message: str, namespace: argparse.Namespace, status: int = 1) -> None:
    logger.error("error: %s", message)
    if namespace.debug:
        raise
    sys.exit(status)
