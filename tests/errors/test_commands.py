"""How a command ends that cannot do what it is asked: one line, the right status, a traceback only with --debug."""

import errno
import importlib
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from microsr import cli, info
from microsr.cli import STEPS, main
from microsr.core import files
from microsr.core.files import explain


@pytest.fixture
def failing(monkeypatch):
    """Makes a step fail with an error."""

    def make(error: BaseException):
        def step(namespace):
            raise error

        monkeypatch.setattr(info, "main", step)

    return make


def test_an_interrupted_command_ends_with_130(failing, capsys):
    failing(KeyboardInterrupt())
    with pytest.raises(SystemExit) as ended:
        main(["info", "x"])
    assert ended.value.code == 130
    assert capsys.readouterr().err.splitlines()[-1] == "info: error: interrupted"


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError("no 9 GB"), "MemoryError: no 9 GB"),
        (OSError(errno.EIO, "Input/output error"), "OSError: [Errno 5] Input/output error"),
        (ZeroDivisionError("by zero"), "unexpected ZeroDivisionError: by zero; --debug shows the traceback"),
    ],
)
def test_an_error_that_nobody_wrote_a_message_for_is_a_line_too(failing, refused, error, said):
    failing(error)
    assert refused("info", "x") == said


def test_an_unexpected_error_leaves_its_traceback_in_the_log(failing, refused, tmp_path):
    failing(ZeroDivisionError("by zero"))
    log = tmp_path / "info.log"
    assert refused("info", "x", "--log", log).endswith(f"the traceback is in {log}")
    assert "Traceback" in log.read_text(encoding="utf-8")


@pytest.mark.parametrize("words", [["inform"], ["info"], ["info", "x", "--jso"], ["evaluate"], ["evaluate", "metric"]])
def test_a_command_that_is_misspelt_ends_with_usage_and_one_line(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("usage: microsr")
    assert said[-1].startswith("microsr") and ": error: " in said[-1]


def test_microsr_alone_shows_its_commands(capsys):
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith("usage: microsr") and all(step in said for step in STEPS)


def test_a_reader_that_hangs_up_is_no_error(tmp_path):
    sitk.WriteImage(sitk.GetImageFromArray(np.zeros((3, 8, 8), np.int16)), str(tmp_path / "scan.mha"))
    code = "from microsr.cli import main; main()"
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-c", code, "info", str(tmp_path / "scan.mha")]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, encoding="utf-8", check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, "")


@pytest.mark.parametrize(
    ("code", "free", "said"),
    [
        (errno.EDQUOT, 5, "the quota on the disk of {folder} is used up; make room"),
        (errno.EFBIG, 5, "does not accept a file that large"),
        (errno.ENOSPC, 0, "the disk of {folder} holds as many files as it can"),
        (errno.ENOSPC, 5, "the disk of {folder} is full (0.0 MB free)"),
        (errno.EROFS, 5, "the disk of {folder} can only be read"),
        (errno.EACCES, 5, "no right to {folder} (Permission denied)"),
    ],
)
def test_an_error_of_the_disk_says_what_to_do(failing, refused, tmp_path, monkeypatch, code, free, said):
    class Room:
        f_files, f_favail, f_bavail, f_frsize = 10, free, 0, 4096

    monkeypatch.setattr(files.os, "statvfs", lambda folder: Room)
    message = explain(OSError(code, os.strerror(code)), tmp_path / "out.csv")
    assert said.format(folder=tmp_path) in message
    with pytest.raises(cli.UserError, match=r"out\.csv"), files.explain_errors(tmp_path / "out.csv"):
        raise OSError(code, os.strerror(code))


def test_an_output_that_cannot_be_written_is_refused_before_the_work(refused, tmp_path, monkeypatch):
    monkeypatch.setattr(cli.os, "access", lambda folder, mode: False)
    line = refused(*["export", "x", "--output"], tmp_path / "out.nii")
    assert line.startswith(f"{tmp_path}/out.nii: no right to {tmp_path}")


def test_an_output_below_a_file_is_refused_before_the_work(refused, tmp_path):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "new" / "out.png"
    assert refused("demo", "--output", path) == f"{path}: {tmp_path}/file is a file, not a folder; give another name"


def test_the_demo_overwrites_no_file_but_its_own(refused, tmp_path):
    other, text, folder = (tmp_path / name for name in ("other.png", "text.png", "folder.png"))
    Image.new("L", (4, 4)).save(other)
    text.write_text("mine", encoding="utf-8")
    folder.mkdir()
    for path in (other, text, folder):
        before = path.read_bytes() if path.is_file() else None
        said = refused("demo", "--output", path)
        assert said == f"{path}: exists and is no earlier output of this kind; give another name, or remove it"
        assert (path.read_bytes() if path.is_file() else None) == before


@pytest.mark.parametrize("name", ["demo.jpg", "demo", "demo.pdf"])
def test_the_demo_of_another_format_is_refused(refused, tmp_path, name):
    path = tmp_path / name
    assert refused("demo", "--output", path) == f"{path}: the picture is a PNG; give a name that ends in .png"
    assert not path.exists()


@pytest.mark.parametrize("step", [step for step in STEPS if step != "run"])  # whose arguments are Snakemake's
def test_a_traceback_comes_only_with_debug(step, monkeypatch, capsys, tmp_path):
    module = importlib.import_module(cli.MODULES[step])
    monkeypatch.setattr(module, "arguments", lambda parser: None)

    def fail(namespace):
        raise cli.UserError("x: does not exist; correct the path")

    monkeypatch.setattr(module, "main", fail)
    with pytest.raises(SystemExit) as ended:
        main([step])
    assert ended.value.code == 1
    assert capsys.readouterr().err == f"{step}: error: x: does not exist; correct the path\n"
    with pytest.raises(cli.UserError):
        main([step, "--debug"])
