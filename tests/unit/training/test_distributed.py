"""Several processes, with gloo on a CPU, learn what one process learns from the same batch; torchrun starts and stops
them.
"""

import contextlib
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys

import held
import pandas as pd
import pytest
import torch
from patience import limit, wait_for

from microsr import cli
from microsr.networks import model_file
from microsr.networks.families import build_g1
from microsr.training import checkpoint, train
from microsr.training.distributed import Agreement, Processes
from microsr.training.train import STOPPED

SECONDS = 180
"""Patience with a training, see `limit`."""
FLAGS = [
    "--seed", "3", "--window_hu", "-1000", "400", "--patches_per_case", "12", "--batch_size", "4",
    "--learning_rate", "1e-3", "--pool_size", "3", "--precision", "float32", "--ema_decay", "0.9",
]  # fmt: skip


def command(patches, folder, processes, *more, epochs=2):
    step = ["microsr", "train", "--clinical", patches / "clinical.npy", "--micro", patches / "micro.npy"]
    step += ["--output", folder / "model", "--state", folder / "state", *FLAGS, "--epochs", epochs, *more]
    torchrun = ["torch.distributed.run", "--standalone", "--nproc_per_node", processes, "-m", "--"]
    return list(map(str, [sys.executable, "-m", *(torchrun if processes > 1 else []), *step]))


def one_of(rank, processes, port, words, said):
    """One process of a training, in the environment that torchrun makes for it."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(processes))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    with said.open("a", encoding="utf-8") as file:
        os.dup2(file.fileno(), 2)
    cli.main(words)


@pytest.fixture(scope="module")
def run(patches):
    """Gives weights and history of a training by so many processes that comes to its end. They are forked from one that
    has loaded all of microsr; torchrun itself is in the tests below, and in that of benchmarks/gpu.py.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["microsr.training.train", "torch.utils.tensorboard"])

    def train_in(folder, processes, *more):
        words, said = command(patches, folder, 1, *more)[3:], folder / "said.txt"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        started = [
            context.Process(target=one_of, args=(rank, processes, port, words, said)) for rank in range(processes)
        ]
        try:
            for process in started:
                process.start()
            for process in started:
                process.join(limit(SECONDS))
            assert [process.exitcode for process in started] == [0] * processes, said.read_text(encoding="utf-8")
        finally:
            for process in started:
                process.kill()
        g1, _ = model_file.load_generator(folder / "model" / "generator.pt")
        return flat(g1), pd.read_csv(folder / "model" / "history.csv")

    return train_in


def flat(g1):
    return torch.cat([p.detach().flatten() for p in g1.parameters()])


@pytest.fixture(scope="module", params=["compact"])
def alone(request, run, tmp_path_factory):
    return run(tmp_path_factory.mktemp("alone"), 1, "--network", request.param)


def assert_same(found, alone):
    """But for rounding, which Adam magnifies, measured by how far the training has come."""
    torch.manual_seed(3)
    start = flat(build_g1("compact", 8))
    assert (alone[0] - start).norm() > 0.05
    assert (found[0] - alone[0]).norm() < 2e-2 * (alone[0] - start).norm()
    pd.testing.assert_frame_equal(found[1], alone[1], rtol=1e-2, atol=1e-3)


def test_two_processes_learn_what_one_learns(run, alone, tmp_path):
    log = tmp_path / "train.log"
    found = run(tmp_path, 2, "--network", "compact", "--log", log)
    assert_same(found, alone)
    record = json.loads((tmp_path / "model" / "run.json").read_text(encoding="utf-8"))
    assert record["attempts"][0]["processes"] == 2
    assert log.read_text(encoding="utf-8").count("6 steps in ") == 1, "only the first process speaks"


def test_gradients_gathered_over_parts_by_two_processes_too(run, alone, tmp_path):
    assert_same(run(tmp_path, 2, "--network", "compact", "--accumulate", "2"), alone)


def test_a_training_goes_on_under_another_number_of_processes(patches, tmp_path):
    """Stopped by a signal to torchrun, gone on with alone: the history has no gap and no step twice."""
    long = 400
    process = waiting(patches, tmp_path, 2, 40, long)
    try:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=limit(SECONDS))
    finally:
        process.kill()
    assert process.returncode != 0
    (state,) = tmp_path.glob("state/*/step-*.pt")
    step = int(state.stem.removeprefix("step-"))
    assert step > 40
    stopped = waiting(patches, tmp_path, 1, step + 20, long)
    try:
        stopped.terminate()
        _, said = stopped.communicate(timeout=limit(SECONDS))
    finally:
        stopped.kill()
    assert stopped.returncode == STOPPED, said
    assert f"going on at step {step}" in said
    newest = max(tmp_path.glob("state/*/step-*.pt"))
    record = checkpoint.load_state(newest.parent, "cpu")
    assert record["step"] > step
    every = max(1, 3 * long // 500)
    assert [row["step"] for row in record["history"]] == list(range(every, record["step"] + 1, every))
    assert [attempt["processes"] for attempt in record["attempts"]] == [2, 1]


def waiting(patches, folder, processes, step, epochs):
    """A training of which each process waits in a step for a signal."""
    words = command(patches, folder, processes, "--network", "compact", epochs=epochs)
    begin, note = words.index("microsr"), folder / f"held{step}"
    launch = [word for word in words[:begin] if word not in ("-m", "--")] if processes == 1 else words[: begin - 2]
    process = subprocess.Popen(
        [*launch, held.__file__, str(step), str(note), *words[begin + 1 :]], stderr=subprocess.PIPE, text=True
    )
    wait_for(lambda: len(list(folder.glob(f"{note.name}.*"))) == processes, lambda: process.poll() is None, SECONDS)
    return process


def test_a_batch_that_cannot_be_shared_evenly_is_refused(patches, tmp_path, monkeypatch, capsys):
    three = Processes(count=3, device="cpu")
    monkeypatch.setattr(train, "join", lambda device: contextlib.nullcontext(three))
    with pytest.raises(SystemExit):
        cli.main(command(patches, tmp_path, 1, "--accumulate", "2")[3:])
    said = "train.batch_size is 4, must be divisible by processes x accumulate = 6"
    assert said in capsys.readouterr().err


HANGS_AT_THE_END = """
import os, socket, sys, weakref
import torch, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from microsr.training.distributed import join

def train():
    with join("cpu"):
        network = DistributedDataParallel(torch.nn.Linear(4, 4))
        network(torch.ones(1, 4)).sum().backward()
        dist.all_reduce(torch.ones(3))
        return weakref.ref(dist.group.WORLD)

sys.setswitchinterval(1000)  # Python's lock stays with the main thread until it waits
os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1", MASTER_ADDR="127.0.0.1")
for _ in range(40):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        os.environ["MASTER_PORT"] = str(free.getsockname()[1])
    assert train()() is not None, "the network had the last reference to the group"
"""


def test_a_training_that_is_done_ends():
    """Where the network frees the group of processes, some hang for good: the 16th of one try, the 57th of another."""
    subprocess.run([sys.executable, "-c", HANGS_AT_THE_END], check=True, timeout=limit(300))


def test_alone_a_process_is_all_of_them():
    one = Processes()
    values = torch.tensor([1.0, 2.0])
    assert one.first and one.share(8) == slice(0, 8)
    assert torch.equal(one.mean(values), values) and torch.equal(one.gather(values), values)
    assert one.tell("x") == "x" and Agreement(one)(2) == 2
    assert Processes(rank=1, count=4).share(8) == slice(2, 4)
