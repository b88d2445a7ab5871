"""Patch pairs a second of a training step, beside a textbook CycleGAN step with the same networks and losses in the same run.

    python benchmarks/train_step.py --network resnet compact efficient --threads 1 --output train_step.csv

The textbook step is what a plain PyTorch program does: float32, eager, contiguous tensors, PyTorch's own reflection and
instance norm, one evaluation of a network for each place in the formulas, discriminators frozen while the generators learn,
Adam as it comes. Both take turns, so that a machine whose speed drifts slows both. The arithmetic of a step, counted, over
its time is its rate; the share is that of the rate at which this machine multiplies matrices, measured in the same run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from microsr import SCALE, config, losses
from microsr.cyclegan import CycleGAN, ImagePool
from microsr.devices import choose_device, choose_precision
from microsr.layers import InstanceNorm, ReflectPad
from microsr.networks import Networks, build, draw_noise
from microsr.parallel import Processes
from microsr.passes import gigaflops_per_pair
from microsr.sampling import Batch

MATRIX = {"cpu": 2048, "cuda": 8192}


class Textbook:
    """The modified CycleGAN as one writes it down from the paper."""

    def __init__(self, settings: config.Train, method: config.Method, sizes: tuple[int, int], seed: int, device: str):
        torch.manual_seed(seed)
        self.nets = Networks(*(with_pytorchs_layers(n).to(device) for n in build(settings.network, *sizes)))
        adam = {"lr": settings.learning_rate, "betas": settings.adam_betas}
        self.generators = torch.optim.Adam([*self.nets.g1.parameters(), *self.nets.g2.parameters()], **adam)
        self.discriminators = torch.optim.Adam([*self.nets.d1.parameters(), *self.nets.d2.parameters()], **adam)
        self.pools = ImagePool(settings.pool_size), ImagePool(settings.pool_size)
        self.weights, self.device = method.losses, device

    def noise(self, network: nn.Module, n: int, size: tuple[int, int], stream: int) -> list[Tensor]:
        """Random planes for one evaluation."""
        return draw_noise(network.noise_scales, n, size, torch.Generator(self.device).manual_seed(stream), self.device)

    def step(self, number: int, batch: Batch) -> None:
        """Update the generators, then the discriminators."""
        (g1, g2, d1, d2), w = self.nets, self.weights
        a, b, n, size = batch.a, batch.b, len(batch.a), tuple(batch.a.shape[-2:])
        for network in (d1, d2):
            network.requires_grad_(False)
        a_sr = g1(a, self.noise(g1, n, size, 0))
        b_lr = g2(b, self.noise(g2, n, size, 1))
        a_cycle = g2(a_sr, self.noise(g2, n, size, 2))
        b_cycle = g1(b_lr, self.noise(g1, n, size, 3))
        loss = w.adversarial * losses.generator_adversarial_loss(d1(a_sr))
        loss = loss + w.adversarial * losses.generator_adversarial_loss(d2(b_lr))
        loss = loss + w.cycle * (losses.cycle_loss(a, a_cycle) + losses.cycle_loss(b, b_cycle))
        loss = loss + w.downsample * losses.downsample_loss(a, a_sr) + w.upsample * losses.upsample_loss(b, b_lr)
        loss = loss + w.clinical_ssim * (1 - ssim(a, losses.average_pool(a_sr)))
        loss = loss + w.micro_ssim * (1 - ssim(b, losses.nearest_upsample(b_lr)))
        self.generators.zero_grad()
        loss.backward()
        self.generators.step()

        for network in (d1, d2):
            network.requires_grad_(True)
        random = np.random.default_rng(number)
        self.discriminators.zero_grad()
        losses.discriminator_loss(d1(b), d1(self.pools[0].query(a_sr.detach(), random))).backward()
        losses.discriminator_loss(d2(batch.clinical), d2(self.pools[1].query(b_lr.detach(), random))).backward()
        self.discriminators.step()


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity by convolution with an 11 x 11 Gaussian, one axis after the other, as it is usually written."""
    x = torch.arange(11.0, device=a.device) - 5
    window = torch.exp(-(x**2) / (2 * 1.5**2))
    window = window / window.sum()

    def mean(image: Tensor) -> Tensor:
        return functional.conv2d(functional.conv2d(image, window.view(1, 1, 1, -1)), window.view(1, 1, -1, 1))

    mean_a, mean_b = mean(a), mean(b)
    variance_a, variance_b = mean(a * a) - mean_a**2, mean(b * b) - mean_b**2
    covariance = mean(a * b) - mean_a * mean_b
    c1, c2 = (0.01 * losses.DATA_RANGE) ** 2, (0.03 * losses.DATA_RANGE) ** 2
    structure = (2 * covariance + c2) / (variance_a + variance_b + c2)
    return ((2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1) * structure).mean()


def with_pytorchs_layers(network: nn.Module) -> nn.Module:
    """The network with PyTorch's reflection and instance norm in place of this project's."""
    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, ReflectPad):
                setattr(parent, name, nn.ReflectionPad2d(layer.width))
            elif isinstance(layer, InstanceNorm):
                setattr(parent, name, nn.InstanceNorm2d(layer.channels, track_running_stats=layer.track))
    return network


def a_batch(n: int, clinical_size: int, device: str) -> Batch:
    """A batch of noise: the step's time does not depend on what is in it."""
    random = torch.Generator().manual_seed(0)
    a = torch.rand(n, 1, clinical_size, clinical_size, generator=random).to(device) * 2 - 1
    b = torch.rand(n, 1, SCALE * clinical_size, SCALE * clinical_size, generator=random).to(device) * 2 - 1
    return Batch(a, a, b, a, torch.ones(n, 1, 1, 1, dtype=torch.bool, device=device))


def seconds(device: str, work: Callable[..., object], *given: object) -> float:
    """How long one call takes."""
    finish = torch.cuda.synchronize if device == "cuda" else lambda: None
    finish()
    began = time.perf_counter()
    work(*given)
    finish()
    return time.perf_counter() - began


def matmul_rate(dtype: torch.dtype, device: str) -> float:
    """10^9 floating point operations a second of a product of large matrices: the best of several."""
    n = MATRIX[device]
    a, b = torch.randn(2, n, n, device=device).to(dtype)
    return 2 * n**3 / min(seconds(device, torch.matmul, a, b) for _ in range(8)) / 1e9


def measure(network: str, arguments: argparse.Namespace, device: str) -> dict[str, float | str]:
    """A row of the table: one network, textbook and ours in turn."""
    sizes = (arguments.clinical_size, SCALE * arguments.clinical_size)
    settings = config.Train(network=network, batch_size=arguments.batch_size)
    method, batch = config.Method(), a_batch(arguments.batch_size, arguments.clinical_size, device)
    precision = choose_precision(settings.precision, device)
    textbook = Textbook(settings, method, sizes, 1, device)
    ours = CycleGAN(
        settings, method, sizes, 1, precision=precision, processes=Processes(device=device), compiled=arguments.compile
    )
    times: dict[str, list[float]] = {"textbook": [], "microsr": []}
    for number in range(-arguments.warm_up, arguments.repeats):
        taken = {
            "textbook": seconds(device, textbook.step, abs(number), batch),
            "microsr": seconds(device, ours.step, abs(number), batch, settings.learning_rate),
        }
        for way, time_taken in taken.items() if number >= 0 else ():
            times[way].append(time_taken)
    gigaflops = gigaflops_per_pair(settings, method.losses, sizes)
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    peak = max(matmul_rate(dtype, device) for _ in range(2))
    textbook_time, own_time = (statistics.median(times[way]) for way in ("textbook", "microsr"))
    return {
        "network": network,
        "clinical_size": arguments.clinical_size,
        "batch_size": arguments.batch_size,
        "device": device if device == "cpu" else torch.cuda.get_device_name(),
        "threads": arguments.threads,
        "precision": precision,
        "gflop_per_pair": gigaflops,
        "textbook_pairs_per_second": arguments.batch_size / textbook_time,
        "pairs_per_second": arguments.batch_size / own_time,
        "ratio": statistics.median(t / o for t, o in zip(times["textbook"], times["microsr"], strict=True)),
        "gflop_per_second": gigaflops * arguments.batch_size / own_time,
        "matmul_gflop_per_second": peak,
        "matmul_float32_gflop_per_second": matmul_rate(torch.float32, device),
        "share_of_matmul": gigaflops * arguments.batch_size / own_time / peak,
    }


def main() -> None:
    """Measure, print the table, and write it where asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", nargs="+", default=["resnet", "efficient", "compact"])
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--clinical_size", type=int, default=32, help="pixels, 11 at least (default: the paper's 32)")
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--warm_up", type=int, default=1)
    parser.add_argument("--compile", action="store_true", help="ours with torch.compile")
    parser.add_argument("--output", type=Path, help="the table as .csv")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = choose_device(arguments.device)
    torch.backends.cudnn.benchmark = True
    table = pd.DataFrame([measure(network, arguments, device) for network in arguments.network])
    print(f"torch {torch.__version__}; medians of {arguments.repeats} steps of each, in turn")
    print(table.T.to_string(header=False, float_format=lambda value: f"{value:.4g}"))
    if arguments.output is not None:
        table.to_csv(arguments.output, index=False)


if __name__ == "__main__":
    main()
