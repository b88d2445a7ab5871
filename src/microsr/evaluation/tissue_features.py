"""A small network that tells the simulated tissues apart; what its last layer sees in a window describes lung texture.

In: the truth of a simulated case and its labels (tissues.Tissue). Out: features.pt, one self-contained file, and
features.run.json. The Inception network behind the usual Frechet and kernel distances was trained on photographs; this
one knows nothing but lung at uCT scale, and the distances are named after it (distribution.py).
"""

from __future__ import annotations

import argparse
import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn
from torch.nn import functional

from microsr import config
from microsr.config.sheet import Scan
from microsr.core.errors import UserError
from microsr.core.files import replacing
from microsr.core.progress import Progress, logger
from microsr.core.provenance import write_run
from microsr.core.streams import Stream, numpy_stream, seed_torch
from microsr.formats.readers import read_scan
from microsr.physics.tissues import Tissue
from microsr.physics.window import normalise
from microsr.preprocessing import positions

FORMAT, VERSION = "microsr tissue features", 1
FEATURES = 32
"""Numbers that describe a window: few enough that a few hundred windows estimate their covariance."""
SIZE = 64
"""Side of the windows the network is trained on, pixels: 5 mm at a clinical pixel of 0.625 mm / 8."""
BATCH, RATE = 16, 3e-3
BLUR, NOISE_HU = 1.0, 50.0
"""Largest blur (Gaussian sigma, pixels) and white noise that the network learns to see through."""
HELD_OUT = 4
"""One slice in this many, the last ones, is kept to measure the accuracy."""
STATISTICS = 1024
"""Windows from which the features' usual mean and spread are taken."""


class TissueNetwork(nn.Module):
    """Four convolutions at half the resolution, which see 19 pixels, and the tissue of each pixel from the last of
    them.
    """

    def __init__(self, window_hu: tuple[float, float], features: int = FEATURES) -> None:
        super().__init__()
        self.window_hu = window_hu

        def layer(inputs: int, outputs: int, size: int, **how: int) -> list[nn.Module]:
            return [nn.Conv2d(inputs, outputs, size, padding_mode="replicate", **how), nn.LeakyReLU(0.1)]

        self.hidden = nn.Sequential(
            *layer(1, 16, 5, stride=2, padding=2),
            *layer(16, features, 3, padding=1),
            *layer(features, features, 3, padding=1),
            *layer(features, features, 3, padding=2, dilation=2),
        )
        self.head = nn.Sequential(nn.Conv2d(features, 4 * len(Tissue), 1), nn.PixelShuffle(2))
        self.register_buffer("usual", torch.zeros(features, dtype=torch.float64))
        self.register_buffer("spread", torch.ones(features, dtype=torch.float64))

    def forward(self, hu: Tensor) -> Tensor:
        """Tissues of an image: HU [batch, 1, even h, even w] to logits [batch, tissues, h, w]."""
        return self.head(self.hidden(self._normalise(hu)))

    @torch.inference_mode()
    def describe(self, windows: np.ndarray) -> np.ndarray:
        """Features of windows: HU [number, h, w] to float64 [number, FEATURES].

        The mean of each activation of the last hidden layer over the window, in units of its spread over windows of
        simulated lung, about its mean there.
        """
        found = []
        for some in np.array_split(windows, max(1, len(windows) // 64)):
            seen = self._normalise(torch.from_numpy(np.asarray(some, np.float32))[:, None])
            found.append(self.hidden(seen).mean(dim=(2, 3)).double())
        return ((torch.cat(found) - self.usual) / self.spread).numpy()

    def _normalise(self, hu: Tensor) -> Tensor:
        return normalise(hu, self.window_hu)


def train(
    truth: np.ndarray, labels: np.ndarray, seed: int, window_hu: tuple[float, float], steps: int
) -> TissueNetwork:
    """Train for `steps` steps, at least 2, on slices of truth, HU, and labels, codes of Tissue; both [slices, rows,
    columns], at least SIZE pixels a side.

    Every tissue is in the middle of equally many windows; rare ones weigh more in the cross-entropy, by the root of
    their share. What is outside the lung counts nowhere: no window of the distances holds it, and at this size chest
    wall is as tumour. The same arguments give the same network on the same machine.
    """
    stream = numpy_stream(Stream.FEATURES, seed)
    with torch.random.fork_rng(devices=[]):
        seed_torch(Stream.FEATURE_WEIGHTS, seed)
        network = TissueNetwork(window_hu)
    pixels = [np.flatnonzero(labels == tissue) if tissue != Tissue.OUTSIDE else () for tissue in Tissue]
    share = np.array([len(p) for p in pixels]) / labels.size
    weights = torch.tensor(np.where(share > 0, share, 1) ** -0.5, dtype=torch.float32)
    present = np.flatnonzero(share)
    optimiser = torch.optim.Adam(network.parameters(), lr=RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    progress = Progress(steps, "steps")
    limit = np.subtract(labels.shape[1:], SIZE)
    for _ in range(steps):
        images, answers = [], []
        for tissue in stream.choice(present, BATCH):
            z, row, column = np.unravel_index(stream.choice(pixels[tissue]), labels.shape)
            top, left = np.clip(np.subtract((row, column), stream.integers(SIZE // 4, 3 * SIZE // 4, 2)), 0, limit)
            turns = int(stream.integers(4))
            box = (z, slice(top, top + SIZE), slice(left, left + SIZE))
            images.append(np.rot90(_scan(truth[box], stream), turns))
            answers.append(np.rot90(labels[box], turns))
        logits = network(torch.from_numpy(np.stack(images).astype(np.float32))[:, None])
        loss = functional.cross_entropy(
            logits, torch.from_numpy(np.stack(answers).astype(np.int64)), weights, ignore_index=Tissue.OUTSIDE
        )
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        progress.advance(note=f"cross-entropy {loss.item():.3f}")
    progress.close()
    network.eval()
    _standardise(network, truth, labels, stream)
    return network


def _scan(hu: np.ndarray, stream: np.random.Generator) -> np.ndarray:
    """A window as a uCT may show it: a little blurred, a little noisy; without it the features tell scanners, not
    tissues.
    """
    blurred = gaussian_filter(hu.astype(np.float32), stream.uniform(0, BLUR))
    return blurred + stream.uniform(0, NOISE_HU) * stream.standard_normal(hu.shape, dtype=np.float32)


def _standardise(network: TissueNetwork, truth: np.ndarray, labels: np.ndarray, stream: np.random.Generator) -> None:
    """Take the features' mean and spread from windows of lung without chest wall, or from any where there is no
    room.
    """
    lung = labels != Tissue.OUTSIDE
    counts = positions.count_positions(lung, SIZE, 1.0)
    if not counts.any():
        lung = np.ones_like(lung)
        counts = positions.count_positions(lung, SIZE, 1.0)
    places = positions.draw_positions(lung, SIZE, 1.0, STATISTICS, stream, counts)
    windows = cut(truth, places, SIZE)
    found = network.describe(np.stack([_scan(window, stream) for window in windows]))
    network.usual.copy_(torch.from_numpy(found.mean(axis=0)))
    network.spread.copy_(torch.from_numpy(np.maximum(found.std(axis=0), 1e-6)))


def cut(array: Any, places: np.ndarray, size: int) -> np.ndarray:
    """The windows [number, size, size] of array [slices, rows, columns] that start at places [number, 3]; reads by
    slice.
    """
    windows = np.empty((len(places), size, size), np.float32)
    for z in np.unique(places[:, 0]):
        image = np.asarray(array[int(z)])
        for i in np.flatnonzero(places[:, 0] == z):
            _, row, column = places[i]
            windows[i] = image[row : row + size, column : column + size]
    return windows


@torch.inference_mode()
def recall(network: TissueNetwork, truth: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Share of the pixels of each tissue that the network names rightly; what is outside the lung, or not there, is
    left out.
    """
    right, there = np.zeros(len(Tissue)), np.zeros(len(Tissue))
    for image, answer in zip(truth, labels, strict=True):
        found = network(torch.from_numpy(np.asarray(image, np.float32))[None, None])[0].argmax(0).numpy()
        there += np.bincount(answer.ravel(), minlength=len(Tissue))
        right += np.bincount(answer[found == answer], minlength=len(Tissue))
    return {t.name.lower(): float(right[t] / there[t]) for t in Tissue if there[t] and t != Tissue.OUTSIDE}


def learn(truth: Path, labels: Path, output: Path, seed: int, window_hu: tuple[float, float], steps: int) -> None:
    """Train for `steps` steps on a simulated case and write features.pt with the network, its facts and its accuracy on
    held-out slices.

    The held-out slices are of the same lung: the accuracy says that the network learned tissues, not that it knows
    others.

    Raises
    ------
    UserError
        The volumes do not fit each other, are too small, or the labels are no tissues.
    """
    started = time.time()
    images, answers = (_trim_to_even(read_scan(Scan(path=str(path))).array) for path in (truth, labels))
    _check(images, answers, truth, labels)
    kept = len(images) - max(1, len(images) // HELD_OUT)
    network = train(images[:kept], answers[:kept], seed, window_hu, steps)
    found = recall(network, images[kept:], answers[kept:])
    accuracy = float(np.mean(list(found.values())))
    logger.info("held-out balanced accuracy %.2f: %s", accuracy, ", ".join(f"{k} {v:.2f}" for k, v in found.items()))
    facts = {
        "window_hu": list(map(float, window_hu)),
        "features": FEATURES,
        "size": SIZE,
        "steps": steps,
        "seed": seed,
        "tissues": [t.name.lower() for t in Tissue],
        "held_out_slices": len(images) - kept,
        "balanced_accuracy": accuracy,
        "recall": found,
    }
    serialised = io.BytesIO()  # onto a full disk torch.save itself fails with an internal error
    torch.save({"format": FORMAT, "version": VERSION, "facts": facts, "weights": network.state_dict()}, serialised)
    with replacing(output) as temporary:
        temporary.write_bytes(serialised.getbuffer())
    settings = {"seed": seed, "window_hu": window_hu}
    write_run(output, "features", settings, [truth, labels], started, facts=facts)


def load(path: Path) -> tuple[TissueNetwork, dict[str, Any]]:
    """The network in a features.pt, in evaluation mode, and its facts; runs no code from the file.

    Raises
    ------
    UserError
        The file is damaged, foreign, or of another format version.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        if (saved["format"], saved["version"]) != (FORMAT, VERSION):
            raise ValueError(f"format {saved['format']}, version {saved['version']}")
        network = TissueNetwork(tuple(saved["facts"]["window_hu"]), saved["facts"]["features"])
        network.load_state_dict(saved["weights"])
    except Exception as error:  # whatever a damaged or foreign file provokes
        raise UserError(f"{path} holds no tissue features ({error}); make it with `microsr features`"[:300]) from None
    return network.eval(), saved["facts"]


def _trim_to_even(array: np.ndarray) -> np.ndarray:
    """Without the last row or column where their number is odd: the network halves the resolution."""
    return array[:, : array.shape[1] // 2 * 2, : array.shape[2] // 2 * 2]


def _check(images: np.ndarray, answers: np.ndarray, truth: Path, labels: Path) -> None:
    if images.shape != answers.shape:
        raise UserError(f"{labels} has shape {answers.shape}, {truth} has {images.shape}; give those of one case")
    if len(images) < 2 or min(images.shape[1:]) < SIZE:
        raise UserError(
            f"{truth} has {len(images)} slices of {images.shape[1]}x{images.shape[2]} pixels; the features need at "
            f"least 2 slices of {SIZE}x{SIZE}: raise simulate.clinical_slices or simulate.clinical_size"
        )
    codes = np.unique(answers)
    if codes.min() < 0 or codes.max() >= len(Tissue) or len(codes) < 2:
        raise UserError(
            f"{labels} holds the codes {codes.tolist()[:10]}, not tissues 0 to {len(Tissue) - 1}; simulate again"
        )


def arguments(parser: argparse.ArgumentParser) -> None:
    """Command-line arguments of the step."""
    parser.add_argument("--truth", required=True, type=Path, help="truth of a simulated case, HU (truth.nii.gz)")
    parser.add_argument("--labels", required=True, type=Path, help="its tissues (labels.nii.gz)")
    parser.add_argument("--output", required=True, type=Path, help="the network (features.pt)")
    parser.add_argument("--seed", required=True, type=int)
    steps = config.Evaluate.model_fields["feature_steps"].default
    parser.add_argument(
        "--feature_steps", type=int, default=steps, help=f"training steps, at least 2 (default {steps})"
    )
    default = config.Experiment.model_fields["window_hu"].default
    parser.add_argument("--window_hu", type=float, nargs=2, default=default, help="HU that become -1 and 1")


def main(ns: argparse.Namespace) -> None:
    """Run the step from its command line."""
    torch.set_num_threads(1)  # sums in one order, so that the same seed gives the same file
    learn(ns.truth, ns.labels, ns.output, ns.seed, tuple(ns.window_hu), ns.feature_steps)
