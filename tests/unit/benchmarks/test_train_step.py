"""The benchmark compares like with like: its textbook step and the project's own compute the same."""

import importlib.util
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from microsr import config
from microsr.networks import families
from microsr.training.methods import cyclegan
from microsr.training.methods.method import Setup

ROOT = Path(__file__).parent.parent.parent.parent


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
    settings, method = config.Train(network=network, learning_rate=0.01), config.CycleGANMethod()
    textbook = benchmark.Textbook(settings, method, (16, 128), 1, "cpu")
    ours = cyclegan.CycleGAN(Setup(settings, method, 1), (16, 128))
    monkeypatch.setattr(textbook, "noise", lambda net, n, size, stream: ours.planes(net, range(n), stream, size))
    # The textbook's spectral norm takes a power iteration at each evaluation, ours one a step.
    for network_of_both in (*textbook.nets[2:], *ours.nets[2:]):
        network_of_both.eval()
    monkeypatch.setattr(cyclegan, "refresh_spectral_norm", lambda judge: None)
    start = [flat(net) for net in ours.nets]
    textbook.generators, textbook.discriminators = without_adam(textbook.generators, textbook.discriminators)
    ours.optimisers = without_adam(*ours.optimisers)
    batch = benchmark.a_batch(2, 16, "cpu")
    textbook.step(0, batch)
    ours.step(0, batch, 0.01)
    for net, other, before in zip(ours.nets, textbook.nets, start, strict=True):
        assert (flat(net) - flat(other)).norm() < in_float64 * (flat(net) - before).norm()


def without_adam(*optimisers):
    """The same weights' plain steps along the gradient, as Adam would magnify rounding."""
    return [torch.optim.SGD(one.param_groups[0]["params"], 0.01, fused=True) for one in optimisers]


def flat(net):
    return torch.cat([p.detach().flatten() for p in net.parameters()])


def test_the_authors_networks_are_of_the_size_that_is_known(benchmark):
    nets = benchmark.authors_networks(32)
    g1, g2, d1, d2 = (sum(p.numel() for p in net.parameters()) for net in nets)
    assert (g1 / 1e6, g2 / 1e6, d1) == (pytest.approx(0.73, abs=0.01), pytest.approx(12.9, abs=0.05), d2)
    for own, network, size in zip(families.build("resnet", 32, 256), nets, (32, 256, 256, 32), strict=True):
        counted = []
        for one in (own, network):
            image = torch.zeros(1, 1, size, size, device="meta")
            with FlopCounterMode(display=False) as counter:
                one.to("meta")(*(image, ())[: 2 if network in nets[:2] else 1])
            counted.append(counter.get_total_flops())
        assert counted[0] == counted[1]


def test_the_benchmark_prints_its_table(benchmark, monkeypatch, capsys, tmp_path, small_resnet):
    table = tmp_path / "table.csv"
    flags = f"--network compact --clinical_size 12 --batch_size 2 --repeats 2 --device cpu --output {table}"
    monkeypatch.setattr(sys, "argv", ["train_step.py", *flags.split(), "--precision", "float32", "bfloat16"])
    monkeypatch.setattr(benchmark, "authors_networks", lambda size: families.build("resnet", size, 8 * size))
    benchmark.MATRIX["cpu"] = 256
    benchmark.main()
    assert "times_textbooks_speed" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "table.csv")
    assert list(table["precision"]) == ["float32", "bfloat16"]
    shares = table["gflop_per_pair"] / table["cpu_seconds_per_pair"] / table["matmul_gflop_per_cpu_second"]
    assert list(table["share_of_matmul"]) == pytest.approx(list(shares))
    for peer in ("textbook", "author"):
        assert (table[f"times_{peer}s_speed"] > 0).all()
        assert table[f"{peer}_cpu_seconds_per_pair"].nunique() == 1, "one peer for both precisions"
