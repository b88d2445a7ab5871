"""A training that was stopped, killed or ran out of disk ends with the very weights of one that was not, and with no
others.
"""

import contextlib
import copy
import functools
import itertools
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import held
import numpy as np
import pandas as pd
import pytest
import torch
from choosing import QUARTERS
from patience import limit, wait_for
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from microsr import cli, config
from microsr.core.errors import UserError
from microsr.training import train
from microsr.training.methods.cyclegan import CycleGAN

WINDOW = (-1000.0, 400.0)
STEPS = 6
SETTINGS = config.Train(
    network="compact", epochs=3, patches_per_case=4, batch_size=2, learning_rate=1e-3, pool_size=3, precision="float32"
)
"""Three epochs of two steps; the pools overflow in the second step, the learning rate falls from the fourth."""
ALWAYS = 1e-9
"""compute.checkpoint_minutes that saves after every step."""
METHOD = config.CycleGANMethod()
EVERYTHING = {"ema_decay": 0.9, "gradient_penalty": 1.0}
SECONDS = 120
"""Patience with a process, see `limit`."""


@pytest.fixture(scope="module", autouse=True)
def rows_of_three_steps():
    """So that a training can be cut off inside a row of its history."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "HISTORY_ROWS", 2)
        yield


@pytest.fixture(scope="module")
def straight(patches, rows_of_three_steps, tmp_path_factory):
    """What `run` gives where nothing comes in between."""
    return run(patches, tmp_path_factory.mktemp("straight"))


@pytest.fixture
def stop_in(monkeypatch):
    """Lets a signal come in the middle of a step; None: lets none come."""
    plain = CycleGAN.step

    def choose(stopped, number=signal.SIGTERM):
        def step(self, at, *arguments):
            if at == stopped:
                signal.raise_signal(number)
            return plain(self, at, *arguments)

        monkeypatch.setattr(CycleGAN, "step", step)

    return choose


def run(patches, folder, method=METHOD, seed=5, minutes=1e9, state=None, attempt=1, **changed):
    """A training to its end; weights of the model, and its history as it is written."""
    train.train(
        {name: [patches / f"{name}.npy"] for name in ("clinical", "micro")}, folder / "model",
        state or folder / "state", settings=SETTINGS.model_copy(update=changed), method=method, window_hu=WINDOW,
        seed=seed,
        compute=config.Compute(device="cpu", checkpoint_minutes=minutes), scanner=config.Scanner(),
        attempt=attempt,
    )  # fmt: skip
    return outcome(folder)


def outcome(folder):
    weights = torch.load(folder / "model" / "generator.pt", weights_only=True)["weights"]
    return weights, (folder / "model" / "history.csv").read_text(encoding="utf-8")


def stop(training, *arguments, **options):
    """A training that ends by a signal."""
    with pytest.raises(SystemExit) as stopped:
        training(*arguments, **options)
    assert stopped.value.code == train.STOPPED


def newest_state(folder):
    """All that the newest state holds, but for when and where it was computed."""
    path = max(folder.glob("state/*/step-*.pt"))
    state = torch.load(path, weights_only=True)["state"]
    del state["attempts"]
    return state


def differences(one, other, place="state"):
    """Where two nested values are not equal bit for bit."""
    if type(one) is not type(other):
        return [place]
    if isinstance(one, torch.Tensor):
        return [] if one.dtype == other.dtype and torch.equal(one, other) else [place]
    if isinstance(one, dict):
        if list(one) != list(other):
            return [f"keys of {place}"]
        return [d for key in one for d in differences(one[key], other[key], f"{place}.{key}")]
    if isinstance(one, list | tuple):
        if len(one) != len(other):
            return [f"length of {place}"]
        pairs = zip(one, other, strict=True)
        return [d for n, (x, y) in enumerate(pairs) for d in differences(x, y, f"{place}.{n}")]
    return [] if one == other else [place]


def test_the_models_kept_on_the_way_are_those_of_a_training_that_was_not_stopped(patches, tmp_path, stop_in):
    def models(folder):
        return [torch.load(folder / f"model/generator.{n}.pt", weights_only=True)["weights"] for n in (1, 2, 3)]

    (tmp_path / "straight/model").mkdir(parents=True)
    for folder in (tmp_path / "straight", tmp_path / "stopped"):
        for stopped in [] if folder.name == "straight" else [1, 3]:  # before and between the steps that are kept
            stop_in(stopped)
            stop(run, patches, folder, candidates=3)
        stop_in(None)
        with contextlib.suppress(FileNotFoundError):  # there is no generator.pt among several
            run(patches, folder, candidates=3)
    assert not differences(models(tmp_path / "straight"), models(tmp_path / "stopped"))


EVERY = range(1, STEPS + 1)
WAYS = {
    "compact": ({}, EVERY),
    "compact bfloat16": ({"precision": "bfloat16"}, EVERY),
    "compact with everything": (EVERYTHING, EVERY),
    "compact bfloat16 with everything": (EVERYTHING | {"precision": "bfloat16"}, (2, 5)),
    "resnet": ({"network": "resnet"}, EVERY),
    "resnet bfloat16 with everything": (EVERYTHING | {"network": "resnet", "precision": "bfloat16"}, (1, 3, 5)),
    "efficient": ({"network": "efficient"}, (2, 5)),
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_all_steps_at_once_are_the_first_ones_and_then_the_rest(way, patches, tmp_path, stop_in, small_resnet):
    changed, stops = WAYS[way]
    training = functools.partial(run, patches, **changed)
    stop_in(STEPS - 1)
    stop(training, tmp_path / "straight")
    straight = newest_state(tmp_path / "straight")
    assert [row["step"] for row in straight["history"]] == [3, 6]
    assert straight["step"] == STEPS and all(len(pool) == 3 for pool in straight["pools"])
    for k in stops:
        stop_in(k - 1)
        stop(training, tmp_path / f"{k}")
        assert newest_state(tmp_path / f"{k}")["step"] == k
        stop_in(STEPS - 1)
        if k < STEPS:
            stop(training, tmp_path / f"{k}")
        assert differences(newest_state(tmp_path / f"{k}"), straight) == [], f"{k} steps, then {STEPS - k}"


@pytest.mark.parametrize("network", ["compact", "resnet"])
def test_a_training_stopped_after_each_step_ends_as_one_that_never_was(
    network, patches, tmp_path, stop_in, small_resnet
):
    training = functools.partial(run, patches, network=network, **EVERYTHING)
    straight = training(tmp_path / "straight")
    for step, number in zip(
        range(STEPS), itertools.cycle([signal.SIGTERM, signal.SIGUSR1, signal.SIGINT]), strict=False
    ):
        stop_in(step, number)
        stop(training, tmp_path / "stopped")
    stop_in(None)
    assert differences(training(tmp_path / "stopped"), straight) == []
    record = json.loads((tmp_path / "stopped" / "model" / "run.json").read_text(encoding="utf-8"))
    assert [attempt["start_step"] for attempt in record["attempts"]] == list(range(STEPS + 1))
    assert [attempt["steps"] for attempt in record["attempts"]] == [1] * STEPS + [0]


def test_the_seed_decides_all_and_the_place_of_the_patches_nothing(patches, straight, tmp_path):
    moved = patches.rename(patches.with_name("moved"))
    try:
        assert differences(run(moved, tmp_path / "again"), straight) == []
    finally:
        moved.rename(patches)
    weights, _ = run(patches, tmp_path / "other", seed=6)
    assert not any(torch.equal(weights[name], straight[0][name]) for name in weights)
    first = [run(patches, tmp_path / f"still{seed}", seed=seed, learning_rate=1e-12)[0] for seed in (5, 6)]
    assert not any(torch.allclose(first[0][name], first[1][name]) for name in first[0]), (
        "nothing is learnt at this rate"
    )


def test_a_training_goes_on_after_its_patches_were_moved(patches, straight, tmp_path, stop_in, caplog):
    stop_in(3)
    stop(run, patches, tmp_path / "stopped")
    stop_in(None)
    moved = patches.rename(patches.with_name("moved"))
    try:
        with caplog.at_level("INFO", "microsr"):
            found = run(moved, tmp_path / "stopped")
    finally:
        moved.rename(patches)
    assert "going on at step 4 from " in caplog.text
    assert differences(found, straight) == []


@pytest.mark.parametrize("changed", ["learning rate", "patches", "code", "seed", "losses"])
def test_a_changed_training_starts_fresh_and_says_why(
    changed, patches, straight, tmp_path, stop_in, monkeypatch, caplog
):
    caplog.set_level("INFO", "microsr")
    stop_in(3)
    stop(run, patches, tmp_path / "a")
    stop_in(None)
    other, options = patches, {}
    if changed == "learning rate":
        options, why = {"learning_rate": 2e-3}, "train.learning_rate was 0.001, now 0.002"
    elif changed == "seed":
        options, why = {"seed": 6}, "seed was 5, now 6"
    elif changed == "losses":
        method = config.CycleGANMethod(losses=config.Losses(cycle=3))
        options, why = {"method": method}, "method.losses.cycle was 1.0, now 3.0"
    elif changed == "patches":
        other = tmp_path / patches.name
        other.mkdir()
        for name in ("clinical.npy", "micro.npy"):
            values = np.load(patches / name)
            values[0, 0, 0] += name == "micro.npy"
            np.save(other / name, values)
        why = f"the patches of {patches.name}/micro.npy changed"
    with monkeypatch.context() as patch:
        if changed == "code":
            patch.setattr(train, "code_version", lambda step: "n3w")
            why = "the training code changed"
        new = functools.partial(run, other, **options)
        caplog.clear()
        found = new(tmp_path / "b", state=tmp_path / "a" / "state")
        assert any(
            line.startswith(f"starting fresh, not from an unfinished training: {why} (") for line in caplog.messages
        )
        assert "going on" not in caplog.text
        assert differences(found, new(tmp_path / "c")) == [], "nothing came from the old state"
    assert (
        json.loads((tmp_path / "b" / "model" / "run.json").read_text(encoding="utf-8"))["attempts"][0]["steps"] == STEPS
    )
    caplog.clear()
    assert differences(run(patches, tmp_path / "a"), straight) == []
    assert "going on at step 4 from " in caplog.text, "the old training was left as it was"


def test_a_damaged_newest_state_is_passed_over_in_favour_of_the_one_before(
    patches, straight, tmp_path, stop_in, caplog
):
    stop_in(4)
    stop(run, patches, tmp_path / "stopped", minutes=ALWAYS)
    stop_in(None)
    before, newest = sorted((tmp_path / "stopped").glob("state/*/step-*.pt"))
    newest.write_bytes(newest.read_bytes()[:-1000])
    with caplog.at_level("INFO", "microsr"):
        found = run(patches, tmp_path / "stopped", minutes=ALWAYS)
    assert f"{newest} is damaged (its end is missing); going on from the one before it, step 4" in caplog.messages
    assert f"going on at step 4 from {before.parent}" in caplog.messages
    assert differences(found, straight) == []


REMEDY = "; lower train.learning_rate, set train.gradient_penalty to 1, or set train.precision to float32"


def breaking(monkeypatch, at, how, stopped=None):
    """Let step number `at` give broken losses, or leave broken weights; stopped: the step in which a signal comes."""
    plain = CycleGAN.step

    def step(self, number, *arguments):
        if number == stopped:
            signal.raise_signal(signal.SIGTERM)
        found = plain(self, number, *arguments)
        if number == at and how == "weights":
            with torch.no_grad():
                next(self.nets.d1.parameters()).view(-1)[0] = float("nan")
        elif number >= at:
            found["D1"] = {"nan": found["D1"] * float("nan"), "exploded": found["D1"] * 0 + 7e5}[how]
        return found

    monkeypatch.setattr(CycleGAN, "step", step)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("nan", "training diverged: D1 is nan at step 4"),
        ("exploded", r"training diverged: D1 is 7e\+05 at step 4"),
        ("weights", "training diverged: weights of D1 are not finite after step 4"),
    ],
)
def test_a_training_that_broke_is_not_saved(how, said, patches, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        breaking(patch, 3, how)
        with pytest.raises(UserError, match=f"^{said}{REMEDY}$"):
            run(patches, tmp_path, minutes=ALWAYS)
    breaking(monkeypatch, 3, how, stopped=3)
    with pytest.raises(UserError, match=f"^{said}{REMEDY}$"):
        run(patches, tmp_path)
    assert newest_state(tmp_path)["step"] == 3, "of the step before"
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(("how", "shown"), [("nan", "nan"), ("exploded", r"7e\+05"), ("weights", "")])
def test_a_training_that_broke_in_its_last_step_gives_no_model(how, shown, patches, tmp_path, monkeypatch):
    breaking(monkeypatch, STEPS - 1 if how == "weights" else 3, how)
    with pytest.raises(UserError, match=f"training diverged: .* {shown}.* step 6"):
        run(patches, tmp_path)
    assert not (tmp_path / "model").exists() and not list(tmp_path.glob("state/*/step-*.pt"))


@pytest.mark.parametrize(("learning_rate", "shown"), [(1e30, "nan"), (1.0, r"\d\S*e\+\d+")])
def test_far_too_high_a_learning_rate_ends_with_step_loss_and_what_to_try(learning_rate, shown, patches, tmp_path):
    with pytest.raises(UserError, match=rf"^training diverged: \w+ is {shown} at step 3{REMEDY}$"):
        run(patches, tmp_path, learning_rate=learning_rate)
    assert not list(tmp_path.glob("state/*/step-*.pt")) and not (tmp_path / "model").exists()


def test_a_disk_too_full_for_a_state_does_not_end_the_training(
    patches, straight, tmp_path, small_disk, stop_in, caplog
):
    """There is room for one state, but not for the next one beside it."""
    stop_in(0)
    stop(run, patches, tmp_path / "first")
    (state,) = tmp_path.glob("first/state/*/step-*.pt")
    stop_in(None)
    caplog.set_level("INFO", "microsr")
    disk = small_disk(1.5 * state.stat().st_size // 1024)
    assert differences(run(patches, tmp_path / "a", minutes=ALWAYS, state=disk), straight) == []
    said = "the state could not be saved ([Errno 28] No space left on device); the training goes on, and the last one "
    assert sum(line.startswith(said) for line in caplog.messages) == STEPS - 1
    caplog.clear()
    small_disk(50_000)
    assert differences(run(patches, tmp_path / "b", minutes=ALWAYS, state=disk), straight) == []
    assert "going on at step 1 from " in caplog.text


def test_a_stop_that_finds_no_room_says_so_and_the_training_goes_on_from_the_last_good_state(
    patches, straight, tmp_path, small_files, stop_in, caplog
):
    stop_in(1)
    stop(run, patches, tmp_path / "a")
    stop_in(3)
    said = r"^stopped after step 4, and the state could not be saved .*; free some space "
    with small_files(1000), pytest.raises(UserError, match=said):
        run(patches, tmp_path / "a")
    stop_in(None)
    with caplog.at_level("INFO", "microsr"):
        assert differences(run(patches, tmp_path / "a"), straight) == []
    assert "going on at step 2 from " in caplog.text


def flags(patches, folder, epochs, *more):
    """`microsr train` as the workflow calls it; two steps an epoch."""
    return list(
        map(
            str,
            [
                "train", "--clinical", patches / "clinical.npy", "--micro", patches / "micro.npy",
                "--output", folder / "model", "--state", folder / "state", "--log", folder / "log",
                "--seed", 5, "--window_hu", *WINDOW, "--network", "compact", "--epochs", epochs,
                "--patches_per_case", 4, "--batch_size", 2, "--learning_rate", 1e-3, "--pool_size", 3,
                "--precision", "float32", "--device", "cpu", "--ema_decay", 0.9, *more,
            ],
        )
    )  # fmt: skip


def test_a_disk_too_full_for_the_model_is_told_in_one_line(patches, tmp_path, small_disk, capfd):
    run_it = functools.partial(flags, patches, tmp_path, 3, "--checkpoint_minutes", ALWAYS)
    disk = small_disk(100)
    with pytest.raises(SystemExit) as ended:
        cli.main([*run_it(), "--output", str(disk / "model")])
    assert ended.value.code == 1
    said = capfd.readouterr().err
    assert "Traceback" not in said
    assert [line for line in said.splitlines() if "error" in line] == [
        f"train: error: the training has come to its end, but the model could not be written into {disk / 'model'} "
        "([Errno 28] No space left on device); free some space and run again: it goes on from the last state that was "
        "saved"
    ]
    small_disk(1000)
    cli.main([*run_it(), "--output", str(disk / "model")])
    assert "going on at step 6 from " in capfd.readouterr().err
    cli.main(flags(patches, tmp_path / "straight", 3))
    assert differences(outcome(disk), outcome(tmp_path / "straight")) == []


LONG = 12
"""Epochs of the trainings that are killed."""
KILLS = 4


@pytest.fixture(scope="module")
def prepared():
    """Where processes start from that have loaded all of microsr already: a second each."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["microsr.training.train", "torch.utils.tensorboard"])
    return lambda arguments, way=cli.main, *more: context.Process(target=way, args=(arguments, *more))


@pytest.fixture(scope="module")
def undisturbed(patches, prepared, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    process = prepared(flags(patches, folder, LONG))
    process.start()
    process.join(limit(SECONDS))
    assert process.exitcode == 0
    return outcome(folder)


def states(folder):
    return sorted(path.name for path in folder.glob("state/*/step-*.pt"))


def half_written(folder):
    return list(folder.glob("state/*/.step-*.part"))


def wait_in_step(arguments, last):
    """A training that comes to a step, where it waits to be killed."""
    plain = CycleGAN.step

    def step(self, at, *more):
        while at >= last:
            time.sleep(1)
        return plain(self, at, *more)

    CycleGAN.step = step
    cli.main(arguments)


def die_in_save(arguments, last):
    """A training that is killed when half of its state after a step is written."""
    sync = os.fsync

    def die(descriptor):
        written = re.search(r"/\.step-(\d+)\.pt\.part$", str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        if written and int(written[1]) >= last:
            os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        sync(descriptor)

    os.fsync = die
    cli.main(arguments)


@pytest.mark.quarters("seed", range(QUARTERS))
@pytest.mark.parametrize("seed", range(QUARTERS))
def test_kills_in_the_middle_of_steps_and_saves_change_nothing(seed, patches, prepared, undisturbed, tmp_path):
    """kill -9 at chance moments, and while a state is half written; no attempt comes far, however fast the machine
    is.
    """
    random, each = np.random.default_rng(seed), 2 * LONG // (KILLS + 1)
    arguments = flags(patches, tmp_path, LONG, "--checkpoint_minutes", ALWAYS)
    for attempt in range(KILLS):
        before, last = states(tmp_path), each * attempt + int(random.integers(3, each + 1))
        process = prepared(arguments, wait_in_step if attempt % 2 else die_in_save, last)
        process.start()
        try:
            if attempt % 2:
                wait_for(lambda before=before: states(tmp_path) != before, process.is_alive, SECONDS, every=0.001)
                time.sleep(random.uniform(0, 0.1))
            else:
                process.join(limit(SECONDS))
        finally:
            process.kill()
            process.join()
        assert process.exitcode == -signal.SIGKILL
        assert attempt % 2 or half_written(tmp_path)
    process = prepared(arguments)
    process.start()
    process.join(limit(SECONDS))
    assert process.exitcode == 0
    assert differences(outcome(tmp_path), undisturbed) == []
    record = json.loads((tmp_path / "model" / "run.json").read_text(encoding="utf-8"))
    assert sum(attempt["steps"] for attempt in record["attempts"]) == 2 * LONG
    assert "damaged" not in (tmp_path / "log").read_text(encoding="utf-8")
    assert (tmp_path / "log").read_text(encoding="utf-8").count("going on at step") == KILLS


def wait_for_a_signal_in_step(arguments, step, note):
    """A training that waits in a step until a signal comes."""
    held.hold(step, note)
    cli.main(arguments)


def test_the_command_stops_after_its_step_at_a_signal_and_goes_on_when_called_again(
    patches, prepared, undisturbed, tmp_path
):
    """kill -9 before there is a state, then SIGTERM, then SIGUSR1, then to the end."""
    training = flags(patches, tmp_path, LONG)
    ways = ((2, signal.SIGKILL, -9), (5, signal.SIGTERM, train.STOPPED), (15, signal.SIGUSR1, train.STOPPED))
    for step, number, status in ways:
        note = tmp_path / f"held{step}"
        process = prepared(training, wait_for_a_signal_in_step, step, note)
        process.start()
        try:
            wait_for(Path(f"{note}.0").exists, process.is_alive, SECONDS)
            os.kill(process.pid, number)
            process.join(limit(SECONDS))
            assert process.exitcode == status
        finally:
            process.kill()
            process.join()
    log = (tmp_path / "log").read_text(encoding="utf-8")
    assert states(tmp_path) == ["step-000000006.pt", "step-000000016.pt"], "of the steps in which the signals came"
    for step, number in ((6, signal.SIGTERM), (16, signal.SIGUSR1)):
        assert f"stopped by signal {int(number)} after step {step}; the state is saved, run again to go on" in log
    command = [sys.executable, "-m", "microsr", *training]
    assert subprocess.run(command, stderr=subprocess.DEVNULL, timeout=limit(SECONDS)).returncode == 0
    assert differences(outcome(tmp_path), undisturbed) == []
    history = pd.read_csv(tmp_path / "model" / "history.csv")
    assert list(history["step"]) == list(range(1, 2 * LONG + 1))
    (board,) = tmp_path.glob("state/*/tensorboard")
    shown = EventAccumulator(str(board), size_guidance={"scalars": 0}).Reload().Scalars("losses/D1")
    assert [event.step for event in shown] == list(history["step"])
    assert [event.value for event in shown] == pytest.approx(list(history["D1"]), rel=1e-6)


def test_unequal_values_are_told_apart():
    """The comparison that the tests above rest on."""
    one = {"a": [torch.arange(3.0), 1], "b": 0.1 + 0.2}
    assert differences(copy.deepcopy(one), one) == []
    for other in (
        {"a": [torch.arange(3.0) + 1e-7, 1], "b": one["b"]},
        {"a": [torch.arange(3), 1], "b": one["b"]},
        {"a": [torch.arange(3.0)], "b": one["b"]},
        {"a": [torch.arange(3.0), 1], "b": 0.3},
        {"a": [torch.arange(3.0), 1]},
    ):
        assert differences(other, one) != []
