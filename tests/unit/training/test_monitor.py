"""What is seen of a training: its progress line, its history, TensorBoard's files, and the record of how it was
made.
"""

import functools
import io
import json
import re
import resource
import signal
import time

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.summary.writer.record_writer import RecordWriter

from microsr import __version__, config
from microsr.core.code_version import code_version
from microsr.core.errors import UserError
from microsr.core.progress import Progress
from microsr.core.provenance import checksum
from microsr.networks import model_file
from microsr.physics.window import normalise
from microsr.training import checkpoint, losses, monitor, train
from microsr.training.methods.cyclegan import CycleGAN
from microsr.training.monitor import Board, History
from microsr.training.passes import gigaflops_per_pair

WINDOW = (-1000.0, 400.0)
STEPS, BATCH = 12, 2
SETTINGS = config.Train(
    network="compact", epochs=3, patches_per_case=4, batch_size=BATCH, learning_rate=1e-3, pool_size=3, augment=False,
    precision="float32",
)  # fmt: skip
"""Three epochs of four steps: two cases of four patches in pairs."""
AT_LEAST = 0.05
"""Seconds of a step in these tests."""


@pytest.fixture(autouse=True)
def few_rows(monkeypatch):
    """A row of the history every second step, a panel every third."""
    monkeypatch.setattr(train, "HISTORY_ROWS", 6)
    monkeypatch.setattr(train, "PANELS", 4)


@pytest.fixture
def files(tmp_path):
    random = np.random.default_rng(0)
    found = {"clinical": [], "micro": []}
    for case in ("train1", "train2"):
        for modality, size in (("clinical", 8), ("micro", 64)):
            path = tmp_path / "patches" / modality / f"{case}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, random.normal(-700, 150, (4, size, size)).astype(np.int16))
            found[modality].append(path)
    return found


def run(files, folder, **compute):
    if folder.joinpath("state").exists():
        time.sleep(1 - time.time() % 1)  # TensorBoard orders its files by the second in their names
    train.train(
        files, folder / "model", folder / "state", settings=SETTINGS, method=config.CycleGANMethod(),
        window_hu=WINDOW, seed=5, compute=config.Compute(device="cpu", **compute),
    )  # fmt: skip
    return json.loads((folder / "model" / "run.json").read_text(encoding="utf-8"))


@pytest.fixture
def in_step(monkeypatch):
    """Calls what it is given in the middle of a step, of which each takes its time."""
    plain = CycleGAN.step

    def choose(stopped, happens=lambda: None):
        def step(self, number, *arguments):
            time.sleep(AT_LEAST)
            if number == stopped:
                happens()
            return plain(self, number, *arguments)

        monkeypatch.setattr(CycleGAN, "step", step)

    return choose


def stop():
    signal.raise_signal(signal.SIGTERM)


def board_of(folder):
    """What TensorBoard shows: (step, value) of each curve, (step, picture) of each series of pictures."""
    accumulator = EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0}).Reload()
    tags = accumulator.Tags()
    curves = {tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in tags["scalars"]}
    pictures = {
        tag: [
            (event.step, np.asarray(Image.open(io.BytesIO(event.encoded_image_string))))
            for event in accumulator.Images(tag)
        ]
        for tag in tags["images"]
    }
    return curves, pictures


def assert_shows(folder, history):
    """Each row of the history is on the board once, and each panel."""
    curves, pictures = board_of(folder)
    names = [name for name in history.columns if name not in monitor.ROW_FACTS]
    assert len(names) == 10
    others = {"learning_rate", "skipped", "pairs_per_second", "memory_mb"}
    assert set(curves) == {f"losses/{name}" for name in names} | others
    for curve in curves.values():
        assert [step for step, _ in curve] == [2, 4, 6, 8, 10, 12]
    for name, curve in [*((name, f"losses/{name}") for name in names), ("learning_rate", "learning_rate")]:
        assert [value for _, value in curves[curve]] == pytest.approx(list(history[name]), rel=1e-6)
    assert all(0 < speed < BATCH / AT_LEAST for _, speed in curves["pairs_per_second"])
    held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    assert all(50 < memory <= 1.01 * held for _, memory in curves["memory_mb"])
    assert [step for step, _ in pictures.pop("clinical_and_superresolved")] == [3, 6, 9, 12]
    assert not pictures


def test_tensorboard_shows_each_loss_the_learning_rate_speed_memory_and_samples(files, tmp_path, in_step):
    in_step(None)
    run(files, tmp_path)
    (folder,) = tmp_path.glob("state/*/tensorboard")
    assert_shows(folder, pd.read_csv(tmp_path / "model" / "history.csv"))


def test_a_stopped_training_leaves_no_gap_on_the_board_and_no_step_twice(files, tmp_path, in_step):
    """A stop right after a row and a panel, then one inside a row."""
    for last in (5, 8):
        in_step(last, stop)
        with pytest.raises(SystemExit):
            run(files, tmp_path)
        (folder,) = tmp_path.glob("state/*/tensorboard")
        curves, pictures = board_of(folder)
        assert [step for step, _ in curves["losses/D1"]] == list(range(2, last + 2, 2)), (
            "at once, not at the next start"
        )
        assert [step for step, _ in pictures["clinical_and_superresolved"]] == list(range(3, last + 2, 3))
    in_step(None)
    run(files, tmp_path)
    assert len(list(folder.iterdir())) == 3
    assert_shows(folder, pd.read_csv(tmp_path / "model" / "history.csv"))


def test_what_a_killed_training_showed_beyond_its_last_state_is_not_shown_twice(files, tmp_path, in_step, monkeypatch):
    def save_until_4(folder, step, state):
        if step > 4:
            raise OSError("no room")
        checkpoint.save_state(folder, step, state)

    def crash():
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(train, "save_state", save_until_4)
        in_step(10, crash)
        with pytest.raises(MemoryError):
            run(files, tmp_path, checkpoint_minutes=1e-9)
    (folder,) = tmp_path.glob("state/*/tensorboard")
    assert [step for step, _ in board_of(folder)[0]["losses/D1"]] == [2, 4, 6, 8, 10]
    in_step(None)
    assert [attempt["start_step"] for attempt in run(files, tmp_path)["attempts"]] == [0, 4]
    assert_shows(folder, pd.read_csv(tmp_path / "model" / "history.csv"))


@pytest.fixture
def slow_board(monkeypatch):
    """TensorBoard's thread lags behind, as on a busy network drive."""
    write = RecordWriter.write
    monkeypatch.setattr(RecordWriter, "write", lambda *arguments: (time.sleep(0.01), write(*arguments)))


def test_a_state_is_saved_only_when_the_board_has_all_rows_before_it(files, tmp_path, monkeypatch, slow_board):
    found = []

    def look(folder, step, state):
        found.append((len(state["history"]), len(board_of(folder / "tensorboard")[0].get("memory_mb", []))))

    monkeypatch.setattr(train, "save_state", look)
    run(files, tmp_path, checkpoint_minutes=1e-9)
    assert found == [(step // 2, step // 2) for step in range(1, STEPS + 1)]


def test_the_board_of_a_training_that_diverged_has_all_rows_before(files, tmp_path, in_step, slow_board):
    def break_down():
        raise monitor.divergence_error("D1 is nan at step 7")

    in_step(6, break_down)
    with pytest.raises(UserError):
        run(files, tmp_path)
    (folder,) = tmp_path.glob("state/*/tensorboard")
    curves, pictures = board_of(folder)
    assert [[step for step, _ in curve] for curve in curves.values()] == [[2, 4, 6]] * 14
    assert [step for step, _ in pictures["clinical_and_superresolved"]] == [3, 6]


def test_a_panel_is_of_the_first_clinical_patches_above_and_their_sr_below(files, tmp_path):
    a = torch.cat([normalise(torch.from_numpy(np.load(f)[:2]), WINDOW)[:, None] for f in files["clinical"]])
    a_sr = torch.linspace(-1, 1, 4).view(4, 1, 1, 1).expand(4, 1, 64, 64)
    board = Board(tmp_path, 0, BATCH, "cpu")
    board.show_panel(a, a_sr, 7)
    board.close()
    ((step, picture),) = board_of(tmp_path / "tensorboard")[1]["clinical_and_superresolved"]
    grey = picture.reshape(128, 256, -1)[..., 0].astype(float)
    assert step == 7
    for k in range(4):
        above = (losses.nearest_upsample(a, 8)[k, 0] + 1) / 2 * 255
        np.testing.assert_allclose(grey[:64, 64 * k : 64 * (k + 1)], above, atol=1.01)
        np.testing.assert_allclose(grey[64:, 64 * k : 64 * (k + 1)], 255 * k / 3, atol=1.01)


def test_the_same_patches_are_shown_throughout_a_training(files, tmp_path, in_step):
    in_step(5, stop)
    with pytest.raises(SystemExit):
        run(files, tmp_path)
    in_step(None)
    run(files, tmp_path)
    (folder,) = tmp_path.glob("state/*/tensorboard")
    panels = [picture.reshape(128, 64 * BATCH, -1) for _, picture in board_of(folder)[1]["clinical_and_superresolved"]]
    for panel in panels[1:]:
        np.testing.assert_array_equal(panel[:64], panels[0][:64])
        assert not np.array_equal(panel[64:], panels[0][64:]), "G1 has learnt meanwhile"


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_panel_of_a_broken_network_is_drawn_without_complaint(tmp_path):
    board = Board(tmp_path, 0, BATCH, "cpu")
    board.show_panel(torch.zeros(2, 1, 8, 8), torch.full((2, 1, 64, 64), float("nan")), 1)
    board.close()
    assert len(board_of(tmp_path / "tensorboard")[1]["clinical_and_superresolved"]) == 1


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("room", [4, 8, 200])
def test_tensorboard_gives_up_on_a_full_disk_in_one_line(room, full_disk, caplog, capfd):
    """With no room from the start, or none for the next row, or none for the next panel; no thread leaves a
    traceback.
    """
    panel = torch.rand(2, 1, 64, 64)
    with full_disk(room) as folder:
        board = Board(folder, 0, BATCH, "cpu")
        for step in range(1, 1001):
            board.show_row({"step": step, "epoch": step / 3, "learning_rate": 1e-3, "D1": 0.5})
            if room == 200 and step % 10 == 0:
                board.show_panel(panel[..., :8, :8], 2 * panel - 1, step)
        board.flush()
        board.close()
    (said,) = caplog.messages
    assert re.fullmatch(
        r"TensorBoard's files cannot be written \(.*(No space left on device|File too large).*\); the training goes on "
        "without them",
        said,
    )
    assert "Traceback" not in capfd.readouterr().err


def test_errors_of_other_threads_are_shown_as_ever(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(monitor.threading, "excepthook", lambda failed: shown.append(str(failed.exc_value)))
    Board(tmp_path, 0, BATCH, "cpu").close()
    thread = monitor.threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    assert shown == ["division by zero"]


def test_a_training_whose_board_finds_no_room_ends_as_one_that_has_it(files, tmp_path, small_disk, monkeypatch, caplog):
    run(files, tmp_path / "roomy")
    disk, board = small_disk(16), Board.__init__
    monkeypatch.setattr(Board, "__init__", lambda self, folder, *more: board(self, disk, *more))
    run(files, tmp_path / "full")
    (said,) = (record.message for record in caplog.records if record.levelname == "WARNING")
    assert said.startswith("TensorBoard's files cannot be written (")
    models = [torch.load(tmp_path / kind / "model" / "generator.pt", weights_only=True) for kind in ("roomy", "full")]
    assert all(torch.equal(models[0]["weights"][name], value) for name, value in models[1]["weights"].items())


def test_a_row_is_the_mean_over_its_steps():
    history = History()
    for value in (1.0, 2.0, 6.0):
        history.add({"D1": torch.tensor(value), "D2": torch.tensor(-value)})
    assert history.last() == ""
    row = history.close_row(3, 0.5, 1e-3)
    assert row == {"step": 3, "epoch": 0.5, "learning_rate": 1e-3, "D1": 3.0, "D2": -3.0}
    assert history.last() == "D1 3.000 D2 -3.000"
    history.add({"D1": torch.tensor(8.0), "D2": torch.tensor(0.0)})
    assert history.close_row(4, 0.6, 1e-3)["D1"] == 8


def test_a_history_cut_off_inside_a_row_goes_on_to_the_same_row():
    values = torch.rand(7, generator=torch.Generator().manual_seed(0))
    straight = History()
    for value in values:
        straight.add({"D1": value})
    for cut in range(8):
        first = History()
        for value in values[:cut]:
            first.add({"D1": value})
        rest = History(list(first.rows), first.sums(cut))
        for value in values[cut:]:
            rest.add({"D1": value})
        assert rest.sums(7) == straight.sums(7)


def test_the_mean_over_a_long_row_is_exact():
    history, value = History(), torch.tensor(0.1)
    for _ in range(3000):
        history.add({"D1": value})
    assert history.close_row(3000, 1.0, 1e-3)["D1"] == pytest.approx(value.item(), rel=1e-12)


@pytest.mark.parametrize(
    ("value", "shown"),
    [(float("nan"), "nan"), (float("inf"), "inf"), (float("-inf"), "-inf"), (2e4, "2e+04"), (-3e4, "-3e+04")],
)
def test_broken_losses_are_told_with_step_loss_and_what_to_try(value, shown):
    for close in (History.sums, lambda history, step: history.close_row(step, 1.0, 1e-3)):
        history = History([{"step": 10, "epoch": 1.0, "learning_rate": 1e-3, "D1": 0.5}])
        for _ in range(2):
            history.add({"D1": torch.tensor(0.5), "D2": torch.tensor(value)})
        with pytest.raises(UserError) as error:
            close(history, 12)
        assert str(error.value) == (
            f"training diverged: D2 is {shown} at step 12; lower train.learning_rate, set train.gradient_penalty to 1, "
            "or set train.precision to float32"
        )


def test_large_but_sane_losses_go_on():
    history = History()
    history.add({"D1": torch.tensor(5e3)})
    assert history.sums(1) == {"D1": 5e3}


LINE = r"step (\d+)/12, (\S+) (steps/s|s/step), (\d+) s left(?:, (.*))?"


def test_the_progress_line_tells_steps_speed_time_left_and_losses(files, tmp_path, in_step, monkeypatch, caplog):
    """After a resume too, where steps of an earlier attempt must not count as speed."""
    caplog.set_level("INFO", "microsr")
    monkeypatch.setattr(train, "Progress", functools.partial(Progress, interval=0))
    in_step(5, stop)
    with pytest.raises(SystemExit):
        run(files, tmp_path)
    first = [re.fullmatch(LINE, line) for line in caplog.messages]
    in_step(None)
    caplog.clear()
    run(files, tmp_path)
    rest = [re.fullmatch(LINE, line) for line in caplog.messages]
    lines = [match for match in [*first, *rest] if match]
    assert [int(line[1]) for line in lines] == list(range(1, STEPS))
    for line in lines:
        done, speed, left = int(line[1]), float(line[2]), int(line[4])
        rate = speed if line[3] == "steps/s" else 1 / speed
        assert 0 < rate < 1 / AT_LEAST
        assert left == pytest.approx((STEPS - done) / rate, abs=0.6, rel=0.05)
    assert lines[0][5] is None, "there is no row yet"
    history = pd.read_csv(tmp_path / "model" / "history.csv")
    losses = f"D1 {history['D1'].iloc[-1]:.3f}"
    last = next(
        re.fullmatch(r"(\d+) steps in \d+ s, \S+ \S+, (.*)", line) for line in caplog.messages if " in " in line
    )
    assert int(last[1]) == STEPS - 6 and losses in last[2], "of this attempt"


def test_run_json_records_attempts_arithmetic_and_speed(files, tmp_path, in_step):
    began = time.monotonic()
    for last in (2, 7):
        in_step(last, stop)
        with pytest.raises(SystemExit):
            run(files, tmp_path)
    in_step(None)
    record = run(files, tmp_path)
    elapsed = time.monotonic() - began
    attempts = record["attempts"]
    assert [(attempt["start_step"], attempt["steps"]) for attempt in attempts] == [(0, 3), (3, 5), (8, 4)]
    assert all(attempt["seconds"] >= AT_LEAST * attempt["steps"] for attempt in attempts)
    seconds = sum(attempt["seconds"] for attempt in attempts)
    assert seconds <= elapsed
    assert {(attempt["device"], attempt["threads"], attempt["processes"]) for attempt in attempts} == {("cpu", 1, 1)}
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", attempt["time"]) for attempt in attempts)
    assert record["speed"] == {
        "pairs_per_second": pytest.approx(STEPS * BATCH / seconds), "device": "cpu", "threads": 1
    }  # fmt: skip
    counted = gigaflops_per_pair(SETTINGS, config.Losses(), (8, 64))
    assert record["arithmetic"] == {"gflop_per_pair": pytest.approx(counted)} and counted > 0.01


@pytest.mark.parametrize("known", [True, False])
def test_a_model_says_what_it_was_trained_on_and_how(known, files, tmp_path):
    """With the pixel size of its patches, unless one of the cases does not tell it."""
    spacings = {"clinical": (0.6, 0.7), "micro": (0.07, 0.09)}
    for modality, both in spacings.items():
        for path, spacing in zip(files[modality], both, strict=True):
            path.with_suffix(".run.json").write_text(json.dumps({"spacing_mm": [spacing, spacing]}))
    if not known:
        files["clinical"][1].with_suffix(".run.json").unlink()
        files["micro"][0].with_suffix(".run.json").write_text("{}")
    record = run(files, tmp_path)
    _, facts = model_file.load_generator(tmp_path / "model" / "generator.pt")
    assert facts["clinical_spacing_mm"] == (pytest.approx(0.65) if known else None)
    assert facts["micro_spacing_mm"] == (pytest.approx(0.08) if known else None)
    assert (facts["network"], facts["window_hu"], facts["seed"], facts["steps"]) == ("compact", list(WINDOW), 5, STEPS)
    told = facts["provenance"]
    assert told["settings"] == record["settings"] == json.loads(json.dumps(record["settings"]))
    assert told["settings"]["train"]["learning_rate"] == 1e-3 and told["settings"]["precision"] == "float32"
    assert told["inputs"] == [
        [f"{modality}/{path.name}", checksum(path)] for modality in ("clinical", "micro") for path in files[modality]
    ]
    assert told["code"] == code_version("train") == record["code"]["fingerprint"]
    assert told["microsr"] == __version__


def test_a_training_that_only_skips_steps_is_stopped():
    history, broken = History(), {"D1": torch.tensor(0.5), "skipped": torch.tensor(1.0)}
    for step in range(1, 10):
        history.add(broken)
        history.close_row(step, step / 100, 1e-3)
    sound = History(list(history.rows))
    for step in (10, 11):
        sound.add(broken | {"skipped": torch.tensor(0.0)})
        assert sound.close_row(step, step / 100, 1e-3)["skipped"] == 0
    history.add(broken)
    with pytest.raises(UserError, match="no gradient was finite in the 10 steps up to step 10; lower"):
        history.close_row(10, 0.1, 1e-3)
