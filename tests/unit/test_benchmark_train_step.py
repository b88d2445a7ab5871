"""The benchmark compares like with like: its textbook step and the project's own compute the same."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from microsr import config, cyclegan

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("train_step", ROOT / "benchmarks/train_step.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("network", ["resnet", "efficient", "compact"])
def test_one_step_of_the_textbook_changes_the_weights_as_ours_does(
    network, benchmark, small_resnet, monkeypatch, in_float64
):
    settings, method = config.Train(network=network, learning_rate=0.01), config.Method()
    textbook = benchmark.Textbook(settings, method, (16, 128), 1, "cpu")
    ours = cyclegan.CycleGAN(settings, method, (16, 128), 1)
    monkeypatch.setattr(textbook, "noise", lambda net, n, size, stream: ours._noise(net, range(n), stream, size))
    # The textbook's spectral norm takes a power iteration at each evaluation, ours one a step.
    for network_of_both in (*textbook.nets[2:], *ours.nets[2:]):
        network_of_both.eval()
    monkeypatch.setattr(cyclegan, "refresh_spectral_norm", lambda judge: None)
    start = [flat(net) for net in ours.nets]
    for model in (textbook, ours):  # Adam would magnify rounding
        model.generators = torch.optim.SGD(model.generators.param_groups[0]["params"], 0.01, fused=True)
        model.discriminators = torch.optim.SGD(model.discriminators.param_groups[0]["params"], 0.01, fused=True)
    batch = benchmark.a_batch(2, 16, "cpu")
    textbook.step(0, batch)
    ours.step(0, batch, 0.01)
    for net, other, before in zip(ours.nets, textbook.nets, start, strict=True):
        assert (flat(net) - flat(other)).norm() < in_float64 * (flat(net) - before).norm()


def flat(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def test_the_benchmark_prints_its_table(benchmark, monkeypatch, capsys, tmp_path):
    flags = f"--network compact --clinical_size 12 --batch_size 2 --repeats 2 --device cpu --output {tmp_path / 'table.csv'}"
    monkeypatch.setattr(sys, "argv", ["train_step.py", *flags.split()])
    benchmark.MATRIX["cpu"] = 256
    benchmark.main()
    assert "ratio" in capsys.readouterr().out
    assert (tmp_path / "table.csv").read_text(encoding="utf-8").startswith("network,")
