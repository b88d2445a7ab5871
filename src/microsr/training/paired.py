"""Pairs in the order of a training: uCT patches with their scans, and the scans' noise, drawn anew for each sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from microsr import config
from microsr.core.errors import UserError
from microsr.core.streams import Stream, numpy_stream
from microsr.physics import noise_power
from microsr.physics.scanner import mix_slices, noise
from microsr.physics.window import normalise
from microsr.preprocessing.patch_files import read_scans
from microsr.training.batches import UNRELATED_MM, Pairs, PatchStream, open_stored


class PairBatches:
    """Batches of pairs: a scan with noise, normalised to [-1, 1], and the uCT patch that it is of."""

    def __init__(
        self,
        micro: Sequence[Path],
        scans: Sequence[Path],
        tables: Sequence[Path],
        *,
        patches_per_case: int,
        batch_size: int,
        augment: bool,
        window_hu: tuple[float, float],
        seed: int,
        scanner: config.Scanner,
        noise_range: tuple[float, float] | None = None,
        measured: Sequence[np.ndarray] = (),
        slices: int = 1,
        device: str = "cpu",
    ) -> None:
        """micro: uCT patches, scans and tables: what `microsr pairs` made of them; files, one a case.

        scanner: the stated one. noise_range: range of the noise's SD, times the stated or measured one, where each
        sample is one of the patch's scans at random; None: it is the first, by the stated scanner. measured: noise
        powers, HU^2 [size, size], of which each sample has one at random in place of the scanner's noise; none: it has
        that. slices: of each scan that are wanted, the patch's own in the middle. device: where the batches are wanted.

        Raises
        ------
        UserError
            A file holds no patches, the scans are not of the patches, or have fewer slices.
        """
        samples = patches_per_case * len(micro)
        self.steps_per_epoch = math.ceil(samples / batch_size)
        self._micro, self._scans = open_stored(micro, device), open_stored(scans, device)
        self.sizes = self._scans.size, self._micro.size
        self._tables = [read_scans(table, neighbours=slices > 1) for table in tables]
        self._slices, self._stored = slices, []
        scale, rest = divmod(self._micro.size, self._scans.size)
        counts = zip(micro, scans, self._micro.counts, self._scans.counts, map(len, self._tables), strict=True)
        for patches, file, many, seen, told in counts:
            whole = not (told % many or seen % told or rest) and scale in config.SCALES
            if not whole or seen // told not in config.NEIGHBOURS:
                raise UserError(
                    f"{file} holds {seen} scans of {self._scans.size} pixels, and its table {told}: they are not those "
                    f"of {many} patches of {self._micro.size} pixels ({patches}); make them with `microsr pairs`"
                )
            if seen // told < slices:
                raise UserError(
                    f"{file} holds scans of {seen // told} slices, and {slices} are asked for; make them with "
                    f"`microsr pairs --slices {slices}`"
                )
            self._stored.append(seen // told)
        self._order = PatchStream(
            self._micro, samples=self.steps_per_epoch * batch_size, augment=augment, window_hu=window_hu, seed=seed,
            name="paired",
        )  # fmt: skip
        self._batch, self._window, self._seed, self._device = batch_size, window_hu, seed, device
        self._scanner, self._noise_range, self._measured = scanner, noise_range, measured
        self._augment = augment
        self.slice_mm = _range_of([table["slice_mm"] for table in self._tables]) if slices > 1 else None

    def batch(self, step: int, portion: slice | None = None) -> Pairs:
        """The pairs of a step, or of a part of its samples: what the same part of the whole is, bit for bit."""
        epoch, step_of_epoch = divmod(step, self.steps_per_epoch)
        chosen = np.arange(self._batch)[portion or slice(None)]
        places = self._order.places(epoch, step_of_epoch * self._batch + chosen)
        scanned, grain = places.repeat(self._slices, axis=0).reshape(-1, self._slices, 3), []
        for place, sample in zip(scanned, (step * self._batch + chosen).tolist(), strict=True):
            case, patch, _ = place[0]
            place[:, 1], drawn = self._choose_scan(case, patch, numpy_stream(Stream.PAIRS, self._seed, sample))
            grain.append(drawn)
        noise_hu = torch.from_numpy(np.concatenate(grain)).to(self._device, non_blocking=True)
        noisy = self._scans.take(scanned.reshape(-1, 3)) + noise_hu
        a = normalise(noisy, self._window).unflatten(0, (-1, self._slices))
        return Pairs(a, normalise(self._micro.take(places), self._window).unsqueeze(1))

    def _choose_scan(self, case: int, patch: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """The numbers of the slices of one of a patch's scans, int64 [slices], and their noise in HU, float32 [slices,
        rows, columns].
        """
        count, factor, scan = len(self._tables[case]) // self._micro.counts[case], 1.0, 0
        if self._noise_range is not None:
            scan, factor = int(random.integers(count)), random.uniform(*self._noise_range)
        number, stored = patch * count + scan, self._stored[case]
        facts = self._tables[case].iloc[number]
        grain = self._draw_noise(facts, factor, random)
        slices = np.arange(self._slices)
        if self._slices > 1:
            # What repeats the last slice that there is has its noise too, as at the end of a scan.
            half = self._slices // 2
            grain = grain[half + np.clip(slices - half, -facts["before"], facts["after"])]
            if self._augment and random.integers(2):
                slices, grain = slices[::-1], grain[::-1]
        return number * stored + stored // 2 - self._slices // 2 + slices, grain

    def _draw_noise(self, facts: pd.Series, factor: float, random: np.random.Generator) -> np.ndarray:
        """Noise of a scan's slices in HU, float32 [slices, rows, columns]; facts: the scan's row of its table."""
        size, apart = self._scans.size, facts["slice_mm"] if self._slices > 1 else UNRELATED_MM
        if self._measured:
            power = self._measured[int(random.integers(len(self._measured)))]
            layers = np.stack([noise_power.draw(power, (size, size), random) for _ in range(self._slices)])
            if self._slices > 1:
                mixing, _ = mix_slices(self._slices, apart, facts["slice_sigma_mm"])
                layers = np.tensordot(mixing, layers, axes=1)
            return np.float32(factor) * layers
        changes = {"kernel": facts["kernel"], "slice_sigma_mm": facts["slice_sigma_mm"]}
        scanner = self._scanner.model_copy(update=changes)
        return np.float32(factor * self._scanner.noise_hu) * noise((self._slices, size, size), scanner, apart, random)

    def pairs(self, step: int, portion: slice | None = None) -> Pairs:
        """The pairs of a start's step: those of the same step."""
        return self.batch(step, portion)

    def examples(self) -> Tensor:
        """Four scans, or as many as a batch has, always the same: what the board shows."""
        return self.batch(0).a[:4]


def _range_of(columns: Sequence[pd.Series]) -> tuple[float, float]:
    return float(min(column.min() for column in columns)), float(max(column.max() for column in columns))
