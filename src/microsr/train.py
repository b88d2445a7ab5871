"""Training of the modified CycleGAN (Zheng et al. 2020): unpaired clinical and uCT patches in, a generator G1 out.

The state after any step is the four networks, two optimisers, two image pools, the step number and the running sums of the
history; schedules, data order and noise are functions of (seed, step). So a training that was cut off goes on as if it had
not been.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from microsr import UserError, config, losses
from microsr.checkpoint import load_state, save_generator, save_state
from microsr.networks import Networks, build, draw_noise
from microsr.progress import Progress, logger
from microsr.provenance import checksum, code_version, write_run
from microsr.sampling import Batch, Batches, add_noise

HISTORY_ROWS = 500
STOPPED = 143
"""Exit status after a signal to stop: the state is saved, and the same command goes on."""


class ImagePool:
    """The last generated images, shown to a discriminator half of the time instead of new ones (Shrivastava et al. 2017)."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.images: list[Tensor] = []

    def query(self, images: Tensor, random: np.random.Generator) -> Tensor:
        """As many images as given, some of them older; the pool keeps the ones not returned."""
        if self._size == 0:
            return images
        chosen = []
        for image in images.detach():
            if len(self.images) < self._size:
                self.images.append(image.clone())
                chosen.append(image)
            elif random.random() < 0.5:
                place = int(random.integers(self._size))
                chosen.append(self.images[place])
                self.images[place] = image.clone()
            else:
                chosen.append(image)
        return torch.stack(chosen)


class CycleGAN:
    """Networks, optimisers and pools, and one training step over them."""

    def __init__(
        self,
        settings: config.Train,
        method: config.Method,
        sizes: tuple[int, int],
        seed: int,
        device: str,
        window_hu: tuple[float, float] = (-1000.0, 400.0),
        scanner: config.Scanner | None = None,
    ) -> None:
        """scanner: whose noise the repeat_loss adds; needed where it has a weight."""
        torch.manual_seed(seed)
        self.device = device
        self.nets = Networks(
            *(n.to(device, memory_format=torch.channels_last) for n in build(settings.network, *sizes))
        )
        adam = {"lr": settings.learning_rate, "betas": settings.adam_betas}
        self.generators = torch.optim.Adam([*self.nets.g1.parameters(), *self.nets.g2.parameters()], **adam)
        self.discriminators = torch.optim.Adam([*self.nets.d1.parameters(), *self.nets.d2.parameters()], **adam)
        self.pools = ImagePool(settings.pool_size), ImagePool(settings.pool_size)
        self.weights, self.seed = method.losses, seed
        self.window_hu, self.scanner = window_hu, scanner
        self.precision = choose_precision(settings.precision, device)
        self.autocast = torch.autocast(device, torch.bfloat16, enabled=self.precision == "bfloat16")

    def step(self, number: int, batch: Batch, learning_rate: float) -> dict[str, Tensor]:
        """Update the generators, then the discriminators; returns every loss, unweighted."""
        for optimiser in (self.generators, self.discriminators):
            for group in optimiser.param_groups:
                group["lr"] = learning_rate
        batch = Batch(*(x.to(self.device) for x in batch))
        a, clinical, b = (x.contiguous(memory_format=torch.channels_last) for x in batch[:3])
        random = np.random.default_rng([self.seed, number, 2])
        noise = self._noise_source(number, a.shape[0], tuple(a.shape[-2:]))
        g1, g2, d1, d2 = self.nets

        with _frozen(d1, d2), self.autocast:
            own = next(noise)
            a_sr, b_lr = g1(a, own), g2(b, next(noise))
            found = self._generator_losses(batch, a_sr, b_lr, noise)
            if self.weights.repeat:
                again = add_noise(a, self.scanner, self.window_hu, random)
                found["repeat_loss"] = losses.repeat_loss(a_sr, g1(again, own))
        total = sum(getattr(self.weights, WEIGHT_OF[name]) * value for name, value in found.items())
        self.generators.zero_grad(set_to_none=True)
        total.backward()
        self.generators.step()

        with self.autocast:
            fake_micro = self.pools[0].query(a_sr.detach().float(), random)
            fake_clinical = self.pools[1].query(b_lr.detach().float(), random)
            found["D1"] = losses.discriminator_loss(d1(b), d1(fake_micro))
            found["D2"] = losses.discriminator_loss(d2(clinical), d2(fake_clinical))
        self.discriminators.zero_grad(set_to_none=True)
        (found["D1"] + found["D2"]).backward()
        self.discriminators.step()
        return {name: value.detach() for name, value in found.items()}

    def _generator_losses(self, batch: Batch, a_sr: Tensor, b_lr: Tensor, noise: Iterator) -> dict[str, Tensor]:
        """Losses of G1 and G2; a network is evaluated only where a weight asks for it."""
        (g1, g2, d1, d2), w = self.nets, self.weights
        clean, b, found = batch.clean, batch.b, {}

        def seen(image: Tensor) -> Tensor:
            if not w.forgive_px:
                return losses.as_it_is(image)
            return torch.where(batch.noisy, losses.blur(image, w.forgive_px), image.float())

        if w.adversarial:
            found["G1_adversarial"] = losses.generator_adversarial_loss(d1(a_sr))
            found["G2_adversarial"] = losses.generator_adversarial_loss(d2(b_lr))
        if w.cycle:
            found["cycle_clinical"] = losses.cycle_loss(clean, g2(a_sr, next(noise)), seen)
            found["cycle_micro"] = losses.cycle_loss(b, g1(b_lr, next(noise)))
        if w.downsample:
            found["downsample_loss"] = losses.downsample_loss(clean, a_sr, w.pixel_norm, seen)
        if w.upsample:
            found["upsample_loss"] = losses.upsample_loss(b, b_lr, w.pixel_norm)
        if w.clinical_ssim:
            found["clinical_ssim_loss"] = losses.clinical_ssim_loss(clean, a_sr, seen)
        if w.micro_ssim:
            found["micro_ssim_loss"] = losses.micro_ssim_loss(b, b_lr)
        return found

    def _noise_source(self, number: int, batch: int, size: tuple[int, int]) -> Iterator[list[Tensor]]:
        """Noise for G1, G2, G2, G1, in the order in which a step asks for it."""
        entropy = np.random.SeedSequence([self.seed, number, 3]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(entropy[0] >> 1))
        g1, g2, *_ = self.nets
        for network in (g1, g2, g2, g1):
            yield draw_noise(network.noise_scales, batch, size, generator, self.device)

    def state(self) -> dict[str, Any]:
        """Everything that a later step depends on."""
        return {
            "networks": [n.state_dict() for n in self.nets],
            "optimisers": [self.generators.state_dict(), self.discriminators.state_dict()],
            "pools": [pool.images for pool in self.pools],
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go back to a state."""
        for network, saved in zip(self.nets, state["networks"], strict=True):
            network.load_state_dict(saved)
        for optimiser, saved in zip((self.generators, self.discriminators), state["optimisers"], strict=True):
            optimiser.load_state_dict(saved)
        for pool, images in zip(self.pools, state["pools"], strict=True):
            pool.images = images


WEIGHT_OF = {
    "G1_adversarial": "adversarial",
    "G2_adversarial": "adversarial",
    "cycle_clinical": "cycle",
    "cycle_micro": "cycle",
    "downsample_loss": "downsample",
    "upsample_loss": "upsample",
    "clinical_ssim_loss": "clinical_ssim",
    "micro_ssim_loss": "micro_ssim",
    "repeat_loss": "repeat",
}
"""The key of config.Losses that weighs each of the generators' losses."""


def learning_rate_at(step: int, steps: int, settings: config.Train) -> float:
    """Constant for the first constant_fraction of the steps, then linear to 0 (Zhu et al. 2017)."""
    constant = settings.constant_fraction * steps
    return settings.learning_rate * min(1.0, (steps - step) / max(steps - constant, 1.0))


def fix_normalisation(g1: nn.Module) -> None:
    """Let G1's instance norms use their running statistics, as they do at inference, instead of each patch's own."""
    for module in g1.modules():
        if isinstance(module, nn.InstanceNorm2d):
            module.eval()


def train(
    clinical: Sequence[Path],
    micro: Sequence[Path],
    output: Path,
    state: Path,
    *,
    settings: config.Train,
    method: config.Method,
    window_hu: tuple[float, float],
    seed: int,
    compute: config.Compute,
    scanner: config.Scanner | None = None,
) -> None:
    """Train one model, or go on with it, and write generator.pt, history.csv and run.json into `output`.

    clinical, micro: patch files (int16 [patches, rows, columns], HU), one a case. state: folder for unfinished trainings.
    scanner: needed by a method that learns from its noise.

    Raises
    ------
    UserError
        The losses are no longer finite.
    """
    started = time.time()
    torch.set_num_threads(compute.threads)
    device = choose_device(compute.device)
    batches = Batches(
        clinical, micro, patches_per_case=settings.patches_per_case, batch_size=settings.batch_size,
        mix_fraction=method.mix_fraction, augment=settings.augment, window_hu=window_hu, seed=seed,
        mix_noise=scanner if method.mix_noise else None,
    )  # fmt: skip
    model = CycleGAN(settings, method, (batches.clinical_size, batches.micro_size), seed, device, window_hu, scanner)
    described = {"method": method.model_dump(), "train": settings.model_dump(), "window_hu": window_hu, "seed": seed}
    if method.uses_noise:
        described["scanner"] = scanner.model_dump()
    described["precision"] = model.precision  # "auto" may mean another one on another machine
    folder = state / _fingerprint(described, [*clinical, *micro])
    done = load_state(folder, device)
    step, history, sums, attempts = 0, [], {}, []
    if done is not None:
        model.load(done)
        step, history, sums, attempts = (done[key] for key in ("step", "history", "sums", "attempts"))
        logger.info("going on at step %d from %s", step, folder)
    elif state.is_dir() and any(state.iterdir()):
        logger.info("starting fresh: settings, data or code differ from those of the unfinished training in %s", state)
    began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started))
    attempts.append({"start_step": step, "time": began, "device": device, "threads": compute.threads})

    steps = settings.epochs * batches.steps_per_epoch
    every = max(1, steps // HISTORY_ROWS)
    writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step)
    progress = Progress(steps, "step", start=step)

    def save() -> None:
        record = {"step": step, "history": history, "sums": sums, "attempts": attempts}
        save_state(folder, step, model.state() | record)

    saved_at = time.monotonic()
    with _stop_requested() as stop:
        for network in model.nets:
            network.train()
        while step < steps:
            if step >= settings.constant_fraction * steps:
                fix_normalisation(model.nets.g1)
            rate = learning_rate_at(step, steps, settings)
            found = model.step(step, batches.batch(step), rate)
            step += 1
            for name, value in found.items():
                sums[name] = sums.get(name, 0.0) + float(value)
            if step % every == 0 or step == steps:
                count = step - (history[-1]["step"] if history else 0)
                row = {name: value / count for name, value in sums.items()}
                _check_finite(row, step)
                history.append({"step": step, "epoch": step / batches.steps_per_epoch, "learning_rate": rate, **row})
                for name, value in row.items():
                    writer.add_scalar(f"losses/{name}", value, step)
                writer.add_scalar("learning_rate", rate, step)
                sums = {}
            note = " ".join(f"{n} {v:.3f}" for n, v in history[-1].items() if n not in ROW_FACTS) if history else ""
            progress.advance(note=note)
            if stop or time.monotonic() - saved_at > 60 * compute.checkpoint_minutes:
                _check_finite({name: float(value) for name, value in found.items()}, step)
                save()
                saved_at = time.monotonic()
            if stop:
                logger.warning(
                    "stopped by signal %d after step %d; the state is saved, run again to go on", stop[0], step
                )
                sys.exit(STOPPED)
    progress.close()
    writer.close()

    output.mkdir(parents=True, exist_ok=True)
    facts = {"network": settings.network, "window_hu": list(window_hu), "seed": seed, "steps": step}
    save_generator(output / "generator.pt", model.nets.g1, facts)
    pd.DataFrame(history).to_csv(output / "history.csv", index=False)
    write_run(
        output / "run.json", "train", described, [*clinical, *micro], started,
        attempts=attempts,
    )  # fmt: skip


ROW_FACTS = ("step", "epoch", "learning_rate")


def choose_device(wanted: str) -> str:
    """ "cuda" or "cpu"; "auto" takes the GPU if there is one.

    Raises
    ------
    UserError
        A GPU is asked for and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("compute.device is 'cuda', but no GPU is available; set it to 'auto' or 'cpu'")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def choose_precision(wanted: str, device: str) -> str:
    """ "float32" or "bfloat16"; "auto" takes bfloat16 where the hardware has units for it."""
    if wanted != "auto":
        return wanted
    if device == "cuda":
        able = torch.cuda.get_device_capability() >= (8, 0)
    else:
        able = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if able else "float32"


@contextlib.contextmanager
def _frozen(*networks: nn.Module) -> Iterator[None]:
    """No gradients into these networks' parameters."""
    for network in networks:
        network.requires_grad_(False)
    try:
        yield
    finally:
        for network in networks:
            network.requires_grad_(True)


@contextlib.contextmanager
def _stop_requested() -> Iterator[list[int]]:
    """A list that receives the number of a signal to stop: Ctrl-C, a scheduler's SIGTERM, or SIGUSR1 before a time limit."""
    received: list[int] = []
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    before = [signal.signal(s, lambda number, frame: received.append(number)) for s in signals]
    try:
        yield received
    finally:
        for s, handler in zip(signals, before, strict=True):
            signal.signal(s, handler)


def _check_finite(row: dict[str, float], step: int) -> None:
    bad = [name for name, value in row.items() if not np.isfinite(value)]
    if bad:
        raise UserError(
            f"training diverged: {bad[0]} is {row[bad[0]]} at step {step}; "
            "lower train.learning_rate, or set train.precision to float32"
        )


def _fingerprint(described: dict[str, Any], files: Sequence[Path]) -> str:
    content = json.dumps([described, [checksum(f) for f in files], code_version("train")], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr train`."""
    parser.add_argument("--clinical", type=Path, nargs="+", required=True, help="clinical patches, one .npy a case")
    parser.add_argument("--micro", type=Path, nargs="+", required=True, help="uCT patches, one .npy a case")
    parser.add_argument("--output", type=Path, required=True, help="folder for generator.pt, history.csv, run.json")
    parser.add_argument("--state", type=Path, required=True, help="folder for the state of unfinished trainings")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--window_hu", type=float, nargs=2, required=True, help="HU that become -1 and 1")
    for section in (config.Method, config.Train, config.Compute, config.Scanner):
        config.add_flags(parser, section)


def main(namespace: argparse.Namespace) -> None:
    """Run `microsr train`."""
    train(
        namespace.clinical,
        namespace.micro,
        namespace.output,
        namespace.state,
        settings=config.from_flags(namespace, config.Train),
        method=config.from_flags(namespace, config.Method),
        window_hu=tuple(namespace.window_hu),
        seed=namespace.seed,
        compute=config.from_flags(namespace, config.Compute),
        scanner=config.from_flags(namespace, config.Scanner),
    )
