"""Which patches make up which training step: a pure function of (seed, step), so that a resumed training sees the same
data.

All chance of a sample (its patch, how that is turned, its noise) hangs on the seed and the sample's number alone, so
that processes which share a batch see together what one process would.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from microsr import config
from microsr.core.errors import UserError
from microsr.core.streams import Stream, numpy_stream
from microsr.networks.layers import average_pool
from microsr.physics.scanner import noise
from microsr.physics.window import normalise
from microsr.preprocessing.patch_files import open_patches


class Batch(NamedTuple):
    """Patches of one step, float32 [batch, 1, rows, columns] in [-1, 1]."""

    a: Tensor
    """Inputs of G1: clinical patches, some of them average-pooled uCT."""
    clinical: Tensor
    """Clinical patches: what D2 takes for real."""
    b: Tensor
    """uCT patches."""


UNRELATED_MM = 1000.0
"""Distance of patches along the patient, as the noise sees it: theirs is not correlated."""
RESIDENT_SHARE = 0.25
"""The patches of a modality live on the GPU if they take at most this share of its free memory; the rest is for the
networks.
"""
SYMMETRIES = 8
"""Of a square: flips and turns by 90 degrees."""


class Mapped:
    """Patches that stay in their memory-mapped files and are read when they are drawn.

    arrays: int16 [patches, size, size] in HU, one a case.
    """

    def __init__(self, arrays: Sequence[np.ndarray], device: str) -> None:
        self.counts, self.size = [len(array) for array in arrays], arrays[0].shape[-1]
        self._arrays, self._device = arrays, torch.device(device)

    def take(self, places: np.ndarray) -> Tensor:
        """Patches int16 [n, size, size] on the device; places: int64 [n, 3], each case, index and symmetry."""
        # A copy to a GPU lets the training go on only if it is from pinned memory.
        pinned = self._device.type == "cuda"
        patches = torch.empty((len(places), self.size, self.size), dtype=torch.int16, pin_memory=pinned)
        # Rows a power of two apart share few lines of the cache, which makes turning slow; these are not.
        spaced = np.empty((self.size, self.size + 16), np.int16)[:, : self.size]
        for image, (case, index, symmetry) in zip(patches.numpy(), places.tolist(), strict=True):
            stored = self._arrays[case][index]
            if symmetry:
                spaced[...] = stored
                stored = apply_symmetry(spaced, symmetry)
            image[...] = stored
        return patches.to(self._device, non_blocking=True)


class Resident:
    """Patches that all live on the device, so that a step reads nothing from elsewhere. Gives what `Mapped` gives."""

    def __init__(self, arrays: Sequence[np.ndarray], device: str) -> None:
        self.counts, self.size = [len(array) for array in arrays], arrays[0].shape[-1]
        self._device = torch.device(device)
        self._starts = np.cumsum([0, *self.counts])
        self._patches = torch.empty((self._starts[-1], self.size, self.size), dtype=torch.int16, device=device)
        for start, array in zip(self._starts[:-1], arrays, strict=True):
            self._patches[start : start + len(array)] = torch.from_numpy(np.array(array))
        pixels = np.arange(self.size**2).reshape(self.size, self.size)
        sources = np.stack([apply_symmetry(pixels, symmetry) for symmetry in range(SYMMETRIES)])
        self._sources = torch.from_numpy(sources).flatten(1).to(device)

    def take(self, places: np.ndarray) -> Tensor:
        """Patches int16 [n, size, size] on the device; places: int64 [n, 3], each case, index and symmetry."""
        case, index, symmetry = places.T
        facts = torch.from_numpy(np.stack([self._starts[case] + index, symmetry])).to(self._device, non_blocking=True)
        chosen = self._patches.index_select(0, facts[0]).flatten(1)
        return chosen.gather(1, self._sources.index_select(0, facts[1])).view(-1, self.size, self.size)


def apply_symmetry(image: np.ndarray, symmetry: int) -> np.ndarray:
    """A view of a square image [size, size] under one of its SYMMETRIES; 0 leaves it as it is."""
    if symmetry & 1:
        image = image.T
    if symmetry & 2:
        image = image[::-1]
    return image[:, ::-1] if symmetry & 4 else image


def open_stored(files: Sequence[Path], device: str) -> Mapped | Resident:
    """The patches of one modality, kept where a training on the device draws them fastest.

    Raises
    ------
    UserError
        A file holds no patches, or others than int16 of one size.
    """
    arrays = [np.asarray(open_patches(file)) for file in files]
    size = arrays[0].shape[-1]
    for file, array in zip(files, arrays, strict=True):
        if array.dtype != np.int16 or array.shape[-1] != size:
            raise UserError(
                f"{file} holds {array.dtype} patches of {array.shape[-1]} pixels, not int16 of {size}; "
                "make it with `microsr patches`"
            )
    return Resident(arrays, device) if fits(sum(array.nbytes for array in arrays), device) else Mapped(arrays, device)


def fits(size: int, device: str) -> bool:
    """Whether `size` bytes of patches may live on the device: on a GPU with room for them."""
    return torch.device(device).type == "cuda" and size <= RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]


class PatchStream:
    """The patches of one modality in the order of a training: drawn evenly from its cases, each epoch anew."""

    def __init__(
        self,
        patches: Mapped | Resident,
        *,
        samples: int,
        augment: bool,
        window_hu: tuple[float, float],
        seed: int,
        name: str,
    ) -> None:
        """samples: of an epoch. augment: turn and flip each patch. name: streams of the same seed differ by it."""
        self._patches, self._samples, self._augment, self._window = patches, samples, augment, window_hu
        self._seed, self._name = seed, name
        self._epoch, self._order = -1, np.empty((0, 3), np.int64)

    def take(self, epoch: int, positions: np.ndarray) -> Tensor:
        """The patches at positions [n] of an epoch, float32 [n, 1, size, size] in [-1, 1]."""
        return normalise(self._patches.take(self.places(epoch, positions)), self._window).unsqueeze(1)

    def places(self, epoch: int, positions: np.ndarray) -> np.ndarray:
        """Case, index and symmetry of the patches at positions [n] of an epoch, int64 [n, 3]."""
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._epoch_order(epoch)
        return self._order[positions]

    def _epoch_order(self, epoch: int) -> np.ndarray:
        """Case, index and symmetry of each sample of an epoch, int64 [samples, 3]."""
        random = numpy_stream(Stream.ORDER, self._seed, self._name, epoch)
        share = math.ceil(self._samples / len(self._patches.counts))
        rows = []
        for case, count in enumerate(self._patches.counts):
            rounds = math.ceil(share / count)
            indices = np.concatenate([random.permutation(count) for _ in range(rounds)])[:share]
            rows.append(np.stack([np.full(share, case), indices], axis=1))
        order = random.permutation(np.concatenate(rows))[: self._samples]
        symmetries = random.integers(SYMMETRIES if self._augment else 1, size=self._samples)
        return np.column_stack([order, symmetries])


class Pairs(NamedTuple):
    """Pairs of a start's step, float32 [batch, 1, rows, columns] in [-1, 1]."""

    a: Tensor
    """uCT patches as the scanner would show them: average-pooled, with its noise."""
    b: Tensor
    """The uCT patches themselves."""


class Batches:
    """Batches of clinical inputs A, real clinical patches and uCT patches B, normalised to [-1, 1]."""

    slice_mm: tuple[float, float] | None = None

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
        start_noise: config.Scanner | None = None,
        device: str = "cpu",
    ) -> None:
        """clinical, micro: patch files, one a case. start_noise: the scanner whose noise the pairs of a start get
        (None: none). device: where the batches are wanted.

        Raises
        ------
        UserError
            A file holds no patches, or others than int16 of one size, or the sizes are in no ratio of SCALES.
        """
        samples = patches_per_case * max(len(clinical), len(micro))
        self.steps_per_epoch = math.ceil(samples / batch_size)
        samples = self.steps_per_epoch * batch_size
        stream = functools.partial(PatchStream, samples=samples, augment=augment, window_hu=window_hu, seed=seed)
        stored_clinical, stored_micro = open_stored(clinical, device), open_stored(micro, device)
        self._scale, rest = divmod(stored_micro.size, stored_clinical.size)
        if rest or self._scale not in config.SCALES:
            known = ", ".join(map(str, config.SCALES))
            raise UserError(
                f"{micro[0]} holds patches of {stored_micro.size} pixels, not {known} times the {stored_clinical.size} "
                f"of {clinical[0]}; make both with the same settings of `microsr patches`"
            )
        self._clinical = stream(stored_clinical, name="clinical")
        self._micro, self._mixed = stream(stored_micro, name="micro"), stream(stored_micro, name="mixed")
        self._start, self._start_noise = stream(stored_micro, name="start"), start_noise
        self.sizes = stored_clinical.size, stored_micro.size
        self._batch, self._mix = batch_size, mix_fraction
        self._window, self._seed, self._device = window_hu, seed, device

    def batch(self, step: int, portion: slice | None = None) -> Batch:
        """The patches of a step, or of a portion of its samples: what the same portion of the whole is, bit for bit.

        `a` equals `clinical` but for the mixed samples, which are average-pooled uCT patches: exactly the share
        `mix_fraction` of the stream, evenly spread (Zheng et al. 2020, section 2: 25 %).
        """
        epoch, step_of_epoch = divmod(step, self.steps_per_epoch)
        chosen = np.arange(self._batch)[portion or slice(None)]
        positions = step_of_epoch * self._batch + chosen
        is_mix = np.array([is_mixed(sample, self._mix) for sample in step * self._batch + chosen], bool)
        mixed = self._on_device(np.flatnonzero(is_mix))
        clinical, micro = self._clinical.take(epoch, positions), self._micro.take(epoch, positions)
        pooled = average_pool(self._mixed.take(epoch, positions[is_mix]), self._scale)
        return Batch(clinical.index_copy(0, mixed, pooled), clinical, micro)

    def pairs(self, step: int, portion: slice | None = None) -> Pairs:
        """The pairs of a start's step, or of a portion of its samples: as of the whole, bit for bit."""
        epoch, step_of_epoch = divmod(step, self.steps_per_epoch)
        chosen = np.arange(self._batch)[portion or slice(None)]
        b = self._start.take(epoch, step_of_epoch * self._batch + chosen)
        a = average_pool(b, self._scale)
        if self._start_noise is not None:
            a = self._with_noise(a, self._start_noise, step * self._batch + chosen)
        return Pairs(a, b)

    def examples(self) -> Tensor:
        """Four clinical patches, or as many as a batch has, always the same: what the board shows."""
        return self.batch(0).clinical[:4]

    def _with_noise(self, pooled: Tensor, scanner: config.Scanner, samples: np.ndarray) -> Tensor:
        randoms = (numpy_stream(Stream.START_NOISE, self._seed, sample) for sample in samples.tolist())
        noisy = (add_noise(p[None], scanner, self._window, r) for p, r in zip(pooled, randoms, strict=True))
        return torch.cat(list(noisy))

    def _on_device(self, facts: np.ndarray) -> Tensor:
        return torch.from_numpy(facts).to(self._device, non_blocking=True)


def add_noise(
    patches: Tensor, scanner: config.Scanner, window_hu: tuple[float, float], random: np.random.Generator
) -> Tensor:
    """Clinical patches [n, 1, rows, columns] in [-1, 1] with fresh noise of the scanner; values leave the window
    clipped.
    """
    n, _, rows, columns = patches.shape
    low, high = window_hu
    drawn = noise((n, rows, columns), scanner, UNRELATED_MM, random) * np.float32(scanner.noise_hu * 2 / (high - low))
    return (patches + torch.from_numpy(drawn)[:, None].to(patches.device, non_blocking=True)).clamp(-1, 1)


def is_mixed(sample: int, fraction: float) -> bool:
    """Whether this sample of the stream is a mixed one; for 0.25 every fourth."""
    return math.floor((sample + 1) * fraction) > math.floor(sample * fraction)
