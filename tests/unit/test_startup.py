"""No command loads what its work does not need: start-up is most of the time of many jobs."""

import json
import subprocess
import sys

import pytest

HEAVY = (
    "torch", "torchmetrics", "pandas", "matplotlib", "SimpleITK", "pydicom", "nibabel", "tifffile", "skimage.metrics",
    "scipy.signal", "scipy.stats", "scipy.optimize", "scipy.interpolate", "pylinac", "bokeh", "tensorboard", "jinja2",
)  # fmt: skip
"""What takes a tenth of a second or more to load, or brings what does."""
NAMES = "--case c --method m --training_set t --seed 1 --superresolved no.ome.zarr"
COMMANDS = {
    "--help": (),
    "demo --help": (),
    "demo --output no.jpg": (),
    "info --help": (),
    "info no.ome.zarr": (),
    "provenance --help": (),
    "gather --help": (),
    "channels --help": (),
    "export --help": (),
    "patches --help": (),
    "pairs --help": (),
    "domain --help": (),
    "scanner --help": (),
    "volumes --help": (),
    "volumes clinical --input no.nii --case c --output out.ome.zarr": (),
    "scan --help": (),
    "scan no.nii --output out.nii": (),
    "figures --help": (),
    "figures metrics --table no.csv --output out": ("pandas", "matplotlib"),
    "figures typeset --kind metrics --table no.csv --output out": ("pandas", "matplotlib"),
    "evaluate --help": (),
    f"evaluate metrics {NAMES} --clinical no.ome.zarr --micro no.ome.zarr --output out.csv": (),
    f"evaluate downsampled {NAMES} --micro no.ome.zarr --output out.csv": (),
    "evaluate collect --inputs no.csv --output out.csv": ("pandas",),
    "simulate --help": ("pandas", "pydicom"),
    "superresolve --help": ("torch",),
}
"""What of HEAVY each command may load, to its help or, of one with a missing file, to its error."""
SCRIPT = """
import contextlib, io, json, os, sys
import pydantic, scipy.ndimage, scipy.sparse.csgraph, yaml, zarr  # loaded once of what all of them may load
from microsr.cli import main
commands, heavy = json.loads(sys.argv[1])
for command in commands:
    if os.fork() == 0:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(SystemExit):
            main(command.split())
        print(json.dumps([command, [name for name in heavy if name in sys.modules]]), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    """What of HEAVY each command has loaded."""
    given = json.dumps([list(COMMANDS), HEAVY])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, given], cwd=tmp_path_factory.mktemp("empty"), capture_output=True, text=True
    )
    assert "unrecognized" not in done.stderr and "required" not in done.stderr and "Traceback" not in done.stderr
    return dict(map(json.loads, done.stdout.splitlines()))


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_loads_no_more_than_it_needs(loaded, command):
    assert set(loaded[command]) <= set(COMMANDS[command])


def test_what_is_looked_for_is_loaded_by_who_needs_it(loaded):
    assert loaded["superresolve --help"] == ["torch"]
    assert "matplotlib" in loaded["figures metrics --table no.csv --output out"]
