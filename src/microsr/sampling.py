"""Which patches make up which training step: a pure function of (seed, step), so that a resumed training sees the same data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from microsr import config
from microsr.losses import average_pool
from microsr.scanner import noise


class Batch(NamedTuple):
    """Patches of one step, float32 [batch, 1, rows, columns] in [-1, 1]."""

    a: Tensor
    """Inputs of G1: clinical patches, some of them average-pooled uCT."""
    clinical: Tensor
    """Clinical patches: what D2 takes for real."""
    b: Tensor
    """uCT patches."""
    clean: Tensor
    """`a` without the noise that the mix was given: what the losses compare with."""
    noisy: Tensor
    """Whether a sample of `clean` holds a scan's noise (bool [batch, 1, 1, 1]): all but the mixed ones."""


UNRELATED_MM = 1000.0
"""Distance of patches along the patient, as the noise sees it: theirs is not correlated."""


class PatchStream:
    """The patches of one modality, drawn evenly from its cases, each epoch in a new order.

    files: int16 arrays [patches, rows, columns] in HU, one a case, memory-mapped.
    """

    def __init__(self, files: Sequence[Path], samples: int, seed: int, name: str) -> None:
        self._arrays = [np.load(file, mmap_mode="r") for file in files]
        self._samples, self._key = samples, [seed, *name.encode()]
        self._epoch, self._order = -1, np.empty((0, 2), np.int64)
        self.size: int = self._arrays[0].shape[-1]

    def take(self, first: int, count: int) -> np.ndarray:
        """Samples first to first + count of the endless stream, int16 [count, rows, columns] HU."""
        patches = []
        for sample in range(first, first + count):
            epoch, position = divmod(sample, self._samples)
            if epoch != self._epoch:
                self._epoch, self._order = epoch, self._epoch_order(epoch)
            case, index = self._order[position]
            patches.append(self._arrays[case][index])
        return np.stack(patches)

    def _epoch_order(self, epoch: int) -> np.ndarray:
        random = np.random.default_rng([*self._key, epoch])
        share = math.ceil(self._samples / len(self._arrays))
        rows = []
        for case, array in enumerate(self._arrays):
            rounds = math.ceil(share / len(array))
            indices = np.concatenate([random.permutation(len(array)) for _ in range(rounds)])[:share]
            rows.append(np.stack([np.full(share, case), indices], axis=1))
        return random.permutation(np.concatenate(rows))[: self._samples]


class Batches:
    """Batches of clinical inputs A, real clinical patches and uCT patches B, normalised to [-1, 1]."""

    def __init__(
        self,
        clinical: Sequence[Path],
        micro: Sequence[Path],
        *,
        patches_per_case: int,
        batch_size: int,
        mix_fraction: float,
        augment: bool,
        window_hu: tuple[float, float],
        seed: int,
        mix_noise: config.Scanner | None = None,
    ) -> None:
        """mix_noise: the scanner whose noise the mixed samples get; None: they stay as they are."""
        samples = patches_per_case * max(len(clinical), len(micro))
        self.steps_per_epoch = math.ceil(samples / batch_size)
        samples = self.steps_per_epoch * batch_size
        self._clinical = PatchStream(clinical, samples, seed, "clinical")
        self._micro = PatchStream(micro, samples, seed, "micro")
        self._mixed = PatchStream(micro, samples, seed, "mixed")
        self.clinical_size, self.micro_size = self._clinical.size, self._micro.size
        self._batch, self._mix, self._augment = batch_size, mix_fraction, augment
        self._window, self._seed, self._mix_noise = window_hu, seed, mix_noise

    def batch(self, step: int) -> Batch:
        """The patches of a step.

        `a` equals `clinical` but for the mixed samples, which are average-pooled uCT patches: exactly the share
        `mix_fraction` of the stream, evenly spread (Zheng et al. 2020, section 2: 25 %).
        """
        random = np.random.default_rng([self._seed, step, 1])
        first = step * self._batch
        clinical = self._prepare(self._clinical.take(first, self._batch), random)
        micro = self._prepare(self._micro.take(first, self._batch), random)
        clean = clinical.clone()
        mixed = [k for k in range(self._batch) if is_mixed(first + k, self._mix)]
        if mixed:
            pooled = [average_pool(self._prepare(self._mixed.take(first + k, 1), random)) for k in mixed]
            clean[mixed] = torch.cat(pooled)
        a = clean
        if mixed and self._mix_noise is not None:
            a = clean.clone()
            a[mixed] = add_noise(clean[mixed], self._mix_noise, self._window, random)
        noisy = torch.ones(self._batch, 1, 1, 1, dtype=torch.bool)
        noisy[mixed] = False
        return Batch(a, clinical, micro, clean, noisy)

    def _prepare(self, patches: np.ndarray, random: np.random.Generator) -> Tensor:
        if self._augment:
            turns, flips = random.integers(4, size=len(patches)), random.integers(2, size=len(patches))
            turned = (np.rot90(p, k) for p, k in zip(patches, turns, strict=True))
            patches = np.stack([p[:, ::-1] if flip else p for p, flip in zip(turned, flips, strict=True)])
        return normalise(torch.from_numpy(patches.astype(np.float32)), self._window).unsqueeze(1)


def add_noise(
    patches: Tensor, scanner: config.Scanner, window_hu: tuple[float, float], random: np.random.Generator
) -> Tensor:
    """Clinical patches [n, 1, rows, columns] in [-1, 1] with fresh noise of the scanner; values leave the window clipped."""
    n, _, rows, columns = patches.shape
    low, high = window_hu
    drawn = noise((n, rows, columns), scanner, UNRELATED_MM, random) * np.float32(scanner.noise_hu * 2 / (high - low))
    return (patches + torch.from_numpy(drawn)[:, None].to(patches.device)).clamp(-1, 1)


def is_mixed(sample: int, fraction: float) -> bool:
    """Whether this sample of the stream is a mixed one; for 0.25 every fourth."""
    return math.floor((sample + 1) * fraction) > math.floor(sample * fraction)


def normalise(hu: Tensor, window_hu: tuple[float, float]) -> Tensor:
    """HU to [-1, 1]; values outside the window are clipped."""
    low, high = window_hu
    return (hu.clamp(low, high) - low) * (2 / (high - low)) - 1


def to_hu(image: Tensor, window_hu: tuple[float, float]) -> Tensor:
    """[-1, 1] back to HU."""
    low, high = window_hu
    return (image + 1) * ((high - low) / 2) + low
