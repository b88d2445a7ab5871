"""What a training step costs, beside a textbook step of the same networks and the first author's networks, in the same
run.

    python benchmarks/train_step.py --network resnet compact efficient --threads 1 --output train_step.csv
    ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 MKL_ENABLE_INSTRUCTIONS=AVX2 python benchmarks/train_step.py   # as
    on a laptop

The textbook step is what a plain PyTorch program does: float32, eager, contiguous tensors, PyTorch's own reflection and
instance norm, one evaluation of a network for each place in the formulas, discriminators frozen while the generators
learn, Adam as it comes. The author's is the same step with the networks that the first author published
(docs/paper.md), written here once more from their description; identity losses are off. Ours is measured in each
--precision. All take turns, so that a machine whose speed drifts slows all. Times are CPU seconds of all threads where
there is no GPU, and seconds by the clock beside
them: on a machine that does other work, only the first compare. The arithmetic of a step, counted, over its time is its
rate; the share is that of the rate at which this machine multiplies matrices of the same type, measured in the same run
and in the same seconds. Our rate counts each convolution as it is written: what minimal filtering saves of it raises
the share.
"""

from __future__ import annotations

import argparse
import functools
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from microsr import config
from microsr.config import DEFAULT_SCALE as SCALE
from microsr.networks.convolution import Conv2d, ConvTranspose2d
from microsr.networks.devices import choose_device, choose_precision
from microsr.networks.families import Networks, build, draw_noise
from microsr.networks.layers import InstanceNorm, ReflectPad
from microsr.training import losses
from microsr.training.batches import Batch
from microsr.training.distributed import Processes
from microsr.training.methods.cyclegan import CycleGAN, ImagePool
from microsr.training.methods.method import Setup
from microsr.training.passes import gigaflops_per_pair

MATRIX = {"cpu": 2048, "cuda": 8192}


class Textbook:
    """The modified CycleGAN as one writes it down from the paper."""

    def __init__(
        self,
        settings: config.Train,
        method: config.CycleGANMethod,
        sizes: tuple[int, int],
        seed: int,
        device: str,
        networks: Networks | None = None,
    ) -> None:
        """networks: those of `settings` if None."""
        torch.manual_seed(seed)
        nets = networks or Networks(*(with_pytorchs_layers(n) for n in build(settings.network, *sizes)))
        self.nets = Networks(*(n.to(device) for n in nets))
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
        loss = loss + w.clinical_ssim * (1 - ssim(a, losses.average_pool(a_sr, 8)))
        loss = loss + w.micro_ssim * (1 - ssim(b, losses.nearest_upsample(b_lr, 8)))
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


class Residual(nn.Module):
    """Reflection, convolution and instance norm, twice, and a skip."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first, second = (
            _normalised(channels, nn.ReflectionPad2d(1), nn.Conv2d(channels, channels, 3)) for _ in range(2)
        )
        self.body = nn.Sequential(*first, nn.ReLU(True), *second)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, channels, h, w], same shape out."""
        return x + self.body(x)


def _normalised(channels: int, *layers: nn.Module) -> list[nn.Module]:
    return [*layers, nn.InstanceNorm2d(channels)]


def authors_networks(clinical_size: int) -> Networks:
    """The first author's: see docs/paper.md for what is known of them."""

    def layer(channels: int, *layers: nn.Module) -> list[nn.Module]:
        return [*_normalised(channels, *layers), nn.ReLU(True)]

    def around(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.ReflectionPad2d(3), nn.Conv2d(inputs, outputs, 7)]

    def down(channels: int) -> list[nn.Module]:
        return layer(2 * channels, nn.Conv2d(channels, 2 * channels, 3, 2, 1))

    def up(channels: int) -> list[nn.Module]:
        return layer(channels // 2, nn.ConvTranspose2d(channels, channels // 2, 3, 2, 1, output_padding=1))

    def discriminator(depth: int) -> nn.Module:
        layers: list[nn.Module] = [nn.Conv2d(1, 64, 4, 2, 1), nn.LeakyReLU(0.2, True)]
        channels = 64
        for stride in [2] * (depth - 1) + [1]:
            layers += [
                *_normalised(2 * channels, nn.Conv2d(channels, 2 * channels, 4, stride, 1)),
                nn.LeakyReLU(0.2, True),
            ]
            channels *= 2
        return nn.Sequential(*layers, nn.Conv2d(channels, 1, 4, 1, 1))

    g1 = [*layer(64, *around(1, 64)), *(Residual(64) for _ in range(9))]
    for inputs in (64, 16, 16):
        g1 += layer(16, nn.Conv2d(inputs, 64, 3, padding=1), nn.PixelShuffle(2))
    g2 = [*layer(64, *around(1, 64)), *down(64), *down(128), *(Residual(256) for _ in range(9)), *up(256), *up(128)]
    g2 += [*down(64), *down(128), *down(256), *around(512, 1), nn.Tanh()]
    nets = Networks(
        nn.Sequential(*g1, *around(16, 1), nn.Tanh()),
        nn.Sequential(*g2),
        discriminator(3),
        discriminator(3 if clinical_size >= 32 else 2),
    )
    for network in nets[:2]:
        network.forward = functools.partial(_without_noise, network)
        network.noise_scales = ()
    return nets


def _without_noise(network: nn.Sequential, image: Tensor, noise: object) -> Tensor:
    return nn.Sequential.forward(network, image)


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity by convolution with an 11 x 11 Gaussian, one axis after the other, as it is usually
    written.
    """
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
    """The network with PyTorch's reflection, instance norm and convolution in place of this project's."""
    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, ReflectPad):
                setattr(parent, name, nn.ReflectionPad2d(layer.width))
            elif isinstance(layer, InstanceNorm):
                setattr(parent, name, nn.InstanceNorm2d(layer.channels, track_running_stats=layer.track))
            elif isinstance(layer, Conv2d):  # with spectral norm, of a class that PyTorch made of it
                layer._conv_forward = nn.Conv2d._conv_forward.__get__(layer)
            elif isinstance(layer, ConvTranspose2d):
                layer.forward = nn.ConvTranspose2d.forward.__get__(layer)
    return network


def a_batch(n: int, clinical_size: int, device: str) -> Batch:
    """A batch of noise: the step's time does not depend on what is in it."""
    random = torch.Generator().manual_seed(0)
    a = torch.rand(n, 1, clinical_size, clinical_size, generator=random).to(device) * 2 - 1
    b = torch.rand(n, 1, SCALE * clinical_size, SCALE * clinical_size, generator=random).to(device) * 2 - 1
    return Batch(a, a, b)


class Taken(NamedTuple):
    """What a call took."""

    cpu: float
    """CPU seconds of all threads; on a GPU, seconds by the clock."""
    clock: float


def taken(device: str, work: Callable[..., object], *given: object) -> Taken:
    """How long one call takes."""
    finish = torch.cuda.synchronize if device == "cuda" else lambda: None
    finish()
    began, cpu = time.perf_counter(), time.process_time()
    work(*given)
    finish()
    clock = time.perf_counter() - began
    return Taken(clock if device == "cuda" else time.process_time() - cpu, clock)


def matmul_rate(dtype: torch.dtype, device: str) -> float:
    """10^9 floating point operations a CPU second (see `Taken`) of a product of large matrices: the best of several."""
    n = MATRIX[device]
    a, b = torch.randn(2, n, n, device=device).to(dtype)
    return 2 * n**3 / min(taken(device, torch.matmul, a, b).cpu for _ in range(8)) / 1e9


def processor(device: str) -> str:
    """What computes, and of a CPU the instructions that PyTorch uses."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{[*names, platform.machine()][0]}, {torch.backends.cpu.get_cpu_capability()}"


def measure(network: str, arguments: argparse.Namespace, device: str) -> list[dict[str, float | str]]:
    """Rows of the table, one a precision: one network, the textbook's, the author's and ours in turn."""
    sizes = (arguments.clinical_size, SCALE * arguments.clinical_size)
    settings = config.Train(network=network, batch_size=arguments.batch_size)
    method, batch = config.CycleGANMethod(), a_batch(arguments.batch_size, arguments.clinical_size, device)
    precisions = list(dict.fromkeys(choose_precision(wanted, device) for wanted in arguments.precision))
    textbook = Textbook(settings, method, sizes, 1, device)
    author = Textbook(settings, method, sizes, 1, device, authors_networks(arguments.clinical_size))
    work = {
        "textbook": lambda number: textbook.step(number, batch),
        "author": lambda number: author.step(number, batch),
    }
    for precision in precisions:
        setup = Setup(
            settings, method, 1, precision=precision, processes=Processes(device=device), compiled=arguments.compile
        )
        ours = CycleGAN(setup, sizes)
        work[precision] = functools.partial(ours.step, batch=batch, learning_rate=settings.learning_rate)
    if arguments.without_author:
        del work["author"]
    times: dict[str, list[Taken]] = {way: [] for way in work}
    for number in range(-arguments.warm_up, arguments.repeats):
        for way, step in work.items():
            one = taken(device, step, abs(number))
            if number >= 0:
                times[way].append(one)
    gigaflops = gigaflops_per_pair(settings, method.losses, sizes)
    return [_row(times, precision, network, gigaflops, arguments, device) for precision in precisions]


def _row(
    times: dict[str, list[Taken]],
    precision: str,
    network: str,
    gigaflops: float,
    arguments: argparse.Namespace,
    device: str,
) -> dict[str, float | str]:
    peak = max(matmul_rate(getattr(torch, precision), device) for _ in range(2))
    median = {way: statistics.median(one.cpu for one in found) / arguments.batch_size for way, found in times.items()}
    clock = statistics.median(one.clock for one in times[precision]) / arguments.batch_size
    row = {
        "network": network,
        "clinical_size": arguments.clinical_size,
        "batch_size": arguments.batch_size,
        "device": processor(device),
        "threads": arguments.threads,
        "precision": precision,
        "gflop_per_pair": gigaflops,
        "cpu_seconds_per_pair": median[precision],
        "clock_seconds_per_pair": clock,
        "pairs_per_second": 1 / clock,
        "gflop_per_cpu_second": gigaflops / median[precision],
        "matmul_gflop_per_cpu_second": peak,
        "share_of_matmul": gigaflops / median[precision] / peak,
    }
    for peer in times.keys() - {"float32", "bfloat16"}:
        both = zip(times[peer], times[precision], strict=True)
        row |= {
            f"{peer}_cpu_seconds_per_pair": median[peer],
            f"times_{peer}s_speed": statistics.median(their.cpu / own.cpu for their, own in both),
        }
    return row


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
    parser.add_argument("--precision", nargs="+", default=["float32", "auto"], choices=["auto", "float32", "bfloat16"])
    parser.add_argument(
        "--without_author", action="store_true", help="the author's step takes 50 times a compact one's"
    )
    parser.add_argument("--compile", action="store_true", help="ours with torch.compile")
    parser.add_argument("--output", type=Path, help="the table as .csv")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    device = choose_device(arguments.device)
    torch.backends.cudnn.benchmark = True
    table = pd.DataFrame([row for network in arguments.network for row in measure(network, arguments, device)])
    print(f"torch {torch.__version__}; medians of {arguments.repeats} steps of each, in turn")
    print(table.T.to_string(header=False, float_format=lambda value: f"{value:.4g}"))
    if arguments.output is not None:
        table.to_csv(arguments.output, index=False)


if __name__ == "__main__":
    main()
