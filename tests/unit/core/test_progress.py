"""What is seen of running steps: one line for each on a shared terminal, a bar on one's own, plain lines in a log."""

import fcntl
import itertools
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

import microsr
from microsr.core import progress
from microsr.core.progress import Progress, duration, label, logger, start_log

LOSSES = " ".join(f"{name}_loss 0.123" for name in ("downsample", "upsample", "clinical_ssim", "micro_ssim", "cycle"))
STEP = """
import sys, time
from pathlib import Path
from microsr.core.progress import Progress, logger, start_log
log, rank = Path(sys.argv[1]), int(sys.argv[2])
start_log("train", log, "microsr train")
if rank:
    logger.setLevel("ERROR")
bar = Progress(40, "steps", interval=0.02)
for step in range(40):
    time.sleep(0.01)
    bar.advance(note=sys.argv[3])
    if step == 20:
        logger.info("a message")
bar.close()
logger.error("error: %s: broken", log.name)
"""


@pytest.fixture
def clock(monkeypatch) -> list[float]:
    """The time as `progress` sees it, seconds; a test moves it."""
    now = [100.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


@pytest.fixture
def said(caplog):
    caplog.set_level("INFO", "microsr")
    return caplog


def run(bar: Progress, clock: list[float], units: int, seconds: float, note: str = "") -> None:
    """So many units at so many seconds each."""
    for _ in range(units):
        clock[0] += seconds
        bar.advance(note=note)


@pytest.mark.parametrize(
    ("step", "log", "named"),
    [
        ("train", "results/demo/logs/train/proposed/pooled.log", "train proposed/pooled"),
        ("train", "/data/logs/results/demo/logs/train/proposed/without-a.seed2.log", "train proposed/without-a.seed2"),
        ("evaluate", "results/demo/logs/evaluate/bicubic/none/test1.images.log", "evaluate bicubic/none/test1.images"),
        ("volumes", "results/demo/logs/volumes/case1/micro.log", "volumes case1/micro"),
        ("superresolve", "results/demo/logs/superresolve/m/s/c.part2.log", "superresolve m/s/c.part2"),
        ("features", "results/demo/logs/features.log", "features"),
        ("domain", "results/demo/logs/domain_case-a.log", "domain domain_case-a"),
        ("superresolve", "mine.log", "superresolve"),
        ("superresolve", None, "superresolve"),
    ],
)
def test_a_step_is_named_by_what_it_works_on(step, log, named):
    assert label(step, log and Path(log)) == named


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"), (39.6, "40 s"), (119.4, "119 s"), (119.6, "2 min"), (754, "13 min"), (3569, "59 min"),
        (3571, "1 h"), (12000, "3 h 20 min"), (86369, "23 h 59 min"), (86371, "1 d"), (187200, "2 d 4 h"),
        (172799, "2 d"),
    ],
)  # fmt: skip
def test_times_are_told_as_people_say_them(seconds, words):
    assert duration(seconds) == words


def test_a_line_says_step_speed_time_left_and_losses(clock, said):
    bar = Progress(2100, "steps")
    run(bar, clock, 31, 0.3125, "cycle_loss 0.123")
    assert not said.messages, "10 s are not over"
    run(bar, clock, 1, 0.3125, "cycle_loss 0.122")
    assert said.messages == ["step 32/2100, 3.2 steps/s, 11 min left, cycle_loss 0.122"]
    slow = Progress(3, "slices")
    run(slow, clock, 1, 48)
    assert said.messages[-1] == "slice 1/3, 48 s/slice, 96 s left"
    fast = Progress(100_000, "planes")
    run(fast, clock, 400, 0.025)
    assert said.messages[-1] == "plane 400/100000, 40 planes/s, 42 min left"


def test_speed_is_that_of_this_attempt_and_of_late(clock, said):
    resumed = Progress(2000, "steps", start=1000)
    run(resumed, clock, 10, 1.0)
    assert said.messages[-1] == "step 1010/2000, 1.0 steps/s, 16 min left", "not 101 steps/s"
    run(resumed, clock, 90, 1.0)
    run(resumed, clock, 200, 0.25)
    assert said.messages[-1] == "step 1300/2000, 4.0 steps/s, 3 min left", "the neighbour has ended"
    run(resumed, clock, 700, 0.25)
    assert said.messages[-1] == "1000 steps in 5 min, 3.1 steps/s"


def test_lines_of_a_long_training_become_rare_but_do_not_cease(clock, said):
    bar, spoken = Progress(86400, "steps"), []
    for second in range(1, 6 * 3600):
        run(bar, clock, 1, 1.0)
        spoken += [second] * (len(said.messages) > len(spoken))
    gaps = [later - earlier for earlier, later in itertools.pairwise(spoken)]
    assert spoken[0] == 10 and gaps[0] == 10 and gaps == sorted(gaps) and gaps[-1] == 300
    assert len(spoken) < 150


def test_a_short_step_says_in_its_log_alone_how_long_it_took(clock, tmp_path, capfd):
    start_log("volumes", tmp_path / "a.log", "microsr volumes")
    bar = Progress(3, "slices")
    run(bar, clock, 3, 1.0)
    bar.close()
    assert capfd.readouterr().err == ""
    assert (tmp_path / "a.log").read_text(encoding="utf-8").endswith("INFO 3 slices in 3 s, 1.0 slices/s\n")
    run(Progress(1, "slices"), clock, 1, 20.0)
    assert (tmp_path / "a.log").read_text(encoding="utf-8").endswith("INFO 1 slice in 20 s, 20 s/slice\n")


def start(terminal: int, log: Path, shared: bool = True, note: str = LOSSES, rank: int = 0) -> subprocess.Popen:
    """A step of 0.4 s that writes to a file descriptor."""
    source = str(Path(microsr.__file__).parent.parent)
    environment = {k: v for k, v in os.environ.items() if k != progress.SHARED} | {"PYTHONPATH": source}
    environment |= {progress.SHARED: "1"} if shared else {}
    return subprocess.Popen([sys.executable, "-c", STEP, log, str(rank), note], stderr=terminal, env=environment)


def on_terminal(*steps, columns: int = 80) -> str:
    """All that steps that run at once write to one terminal; each is given its file descriptor."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    found = []

    def read() -> None:
        while True:
            try:
                found.append(os.read(ours, 65536))
            except OSError:  # nobody writes any more
                return

    reader = threading.Thread(target=read)
    processes = [step(theirs) for step in steps]
    os.close(theirs)
    reader.start()
    assert [process.wait(60) for process in processes] == [0] * len(processes)
    reader.join(10)
    os.close(ours)
    return b"".join(found).decode()


def test_steps_on_one_terminal_write_whole_lines_no_longer_than_a_row(tmp_path):
    logs = [tmp_path / f"logs/train/{method}/pooled.log" for method in ("proposed", "cyclegan", "regression")]
    text = on_terminal(*(lambda terminal, log=log: start(terminal, log) for log in logs), columns=100)
    assert "\r" not in text.replace("\r\n", "\n") and "\x1b" not in text
    lines = text.splitlines()
    progressing = (
        r"train (proposed|cyclegan|regression)/pooled: step \d+/40, \S+ \S+, \d+ s left, (\w+_loss 0\.123 )+\.\.\."
    )
    others = r"train \w+/pooled: (a message|40 steps in \d+ s, .*)|train: error: pooled\.log: broken"
    assert all(re.fullmatch(f"{progressing}|{others}", line) for line in lines), text
    told = [match[1] for line in lines if (match := re.fullmatch(progressing, line))]
    assert set(told) == {"proposed", "cyclegan", "regression"} and len(told) > 6
    assert max(map(len, lines)) <= 100
    for log in logs:
        assert LOSSES in log.read_text(encoding="utf-8"), "in the log, lines are not cut"


def test_on_a_narrow_terminal_the_first_loss_is_still_told(tmp_path):
    text = on_terminal(lambda terminal: start(terminal, tmp_path / "logs/train/proposed/pooled.log"), columns=40)
    line = r"train proposed/pooled: step \d+/40, \S+ \S+, \d+ s left, downsample_loss 0\.123 \.\.\."
    assert re.search(f"^{line}$", text.replace("\r\n", "\n"), re.MULTILINE)


def test_a_step_alone_on_a_terminal_shows_a_bar_and_its_messages_above_it(tmp_path):
    text = on_terminal(
        lambda terminal: start(terminal, tmp_path / "a.log", shared=False, note="cycle_loss 0.1"), columns=120
    )
    assert re.search(r"100%\|█+\| 40/40 \[.*step/s, cycle_loss 0\.1\]", text)
    assert re.search(r"\r *\rtrain: a message\r\n", text), "the bar makes room"
    assert text.rstrip().splitlines()[-1] == "train: error: a.log: broken"
    log = (tmp_path / "a.log").read_text(encoding="utf-8")
    assert "INFO a message" in log and "40 steps in " in log and "\r" not in log


@pytest.mark.parametrize("shared", [True, False])
def test_where_there_is_no_terminal_lines_are_plain_and_whole(shared, tmp_path):
    """As in the log of a cluster's job."""
    with (tmp_path / "slurm.log").open("wb") as file:
        assert start(file.fileno(), tmp_path / "logs/train/a/b.log", shared).wait(60) == 0
    lines = (tmp_path / "slurm.log").read_text(encoding="utf-8").splitlines()
    assert any(re.fullmatch(rf"train a/b: step \d+/40, \S+ \S+, \d+ s left, {LOSSES}", line) for line in lines)
    assert lines[-1] == "train: error: b.log: broken" and not any("\r" in line for line in lines)


@pytest.mark.parametrize("shared", [True, False])
def test_of_processes_that_share_a_training_only_the_first_speaks(shared, tmp_path):
    text = on_terminal(lambda terminal: start(terminal, tmp_path / "a.log", shared, rank=1))
    assert text.splitlines() == ["train: error: a.log: broken"]
    assert "steps/s" not in (tmp_path / "a.log").read_text(encoding="utf-8")


def test_the_other_processes_leave_the_log_alone(clock, tmp_path):
    start_log("train", tmp_path / "a.log", "microsr train")
    logger.setLevel(logging.ERROR)  # as `training.distributed.join` does
    run(Progress(3, "steps"), clock, 3, 1.0)
    logger.setLevel(logging.INFO)
    assert "steps" not in (tmp_path / "a.log").read_text(encoding="utf-8")


def test_nothing_to_do_says_nothing(said):
    bar = Progress(5, "slices", start=5)
    bar.close()
    assert not said.messages and logger.handlers == []
