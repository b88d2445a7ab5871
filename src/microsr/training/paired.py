"""Pairs in the order of a training: uCT patches with their scans, and the scans' noise, drawn anew for each sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from microsr import config
from microsr.core.errors import UserError
from microsr.core.streams import Stream, numpy_stream
from microsr.physics import noise_power
from microsr.physics.scanner import noise
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
        device: str = "cpu",
    ) -> None:
        """micro: uCT patches, scans and tables: what `microsr pairs` made of them; files, one a case.

        scanner: the stated one. noise_range: range of the noise's SD, times the stated or measured one, where each
        sample is one of the patch's scans at random; None: it is the first, by the stated scanner. measured: noise
        powers, HU^2 [size, size], of which each sample has one at random in place of the scanner's noise; none: it has
        that. device: where the batches are wanted.

        Raises
        ------
        UserError
            A file holds no patches, or the scans are not of the patches.
        """
        samples = patches_per_case * len(micro)
        self.steps_per_epoch = math.ceil(samples / batch_size)
        self._micro, self._scans = open_stored(micro, device), open_stored(scans, device)
        self.sizes = self._scans.size, self._micro.size
        self._kernels = [read_scans(table)["kernel"].to_numpy() for table in tables]
        scale, rest = divmod(self._micro.size, self._scans.size)
        counts = zip(micro, scans, self._micro.counts, self._scans.counts, map(len, self._kernels), strict=True)
        for patches, file, many, seen, told in counts:
            if seen % many or seen != told or rest or scale not in config.SCALES:
                raise UserError(
                    f"{file} holds {seen} scans of {self._scans.size} pixels, and its table {told}: they are not those "
                    f"of {many} patches of {self._micro.size} pixels ({patches}); make them with `microsr pairs`"
                )
        self._order = PatchStream(
            self._micro, samples=self.steps_per_epoch * batch_size, augment=augment, window_hu=window_hu, seed=seed,
            name="paired",
        )  # fmt: skip
        self._batch, self._window, self._seed, self._device = batch_size, window_hu, seed, device
        self._scanner, self._noise_range, self._measured = scanner, noise_range, measured

    def batch(self, step: int, portion: slice | None = None) -> Pairs:
        """The pairs of a step, or of a part of its samples: what the same part of the whole is, bit for bit."""
        epoch, step_of_epoch = divmod(step, self.steps_per_epoch)
        chosen = np.arange(self._batch)[portion or slice(None)]
        places = self._order.places(epoch, step_of_epoch * self._batch + chosen)
        scanned, grain = places.copy(), []
        for place, sample in zip(scanned, (step * self._batch + chosen).tolist(), strict=True):
            case, patch, _ = place
            place[1], drawn = self._choose_scan(case, patch, numpy_stream(Stream.PAIRS, self._seed, sample))
            grain.append(drawn)
        noisy = self._scans.take(scanned) + torch.from_numpy(np.stack(grain)).to(self._device, non_blocking=True)
        a, b = (normalise(hu, self._window).unsqueeze(1) for hu in (noisy, self._micro.take(places)))
        return Pairs(a, b)

    def _choose_scan(self, case: int, patch: int, random: np.random.Generator) -> tuple[int, np.ndarray]:
        """Which scan of a patch a sample is, and its noise in HU, float32 [rows, columns]."""
        count, factor, scan = self._scans.counts[case] // self._micro.counts[case], 1.0, 0
        if self._noise_range is not None:
            scan, factor = int(random.integers(count)), random.uniform(*self._noise_range)
        number, size = patch * count + scan, self._scans.size
        if self._measured:
            power = self._measured[int(random.integers(len(self._measured)))]
            return number, np.float32(factor) * noise_power.draw(power, (size, size), random)
        sd = factor * self._scanner.noise_hu
        scanner = self._scanner.model_copy(update={"kernel": self._kernels[case][number]})
        return number, np.float32(sd) * noise((1, size, size), scanner, UNRELATED_MM, random)[0]

    def pairs(self, step: int, portion: slice | None = None) -> Pairs:
        """The pairs of a start's step: those of the same step."""
        return self.batch(step, portion)

    def examples(self) -> Tensor:
        """Four scans, or as many as a batch has, always the same: what the board shows."""
        return self.batch(0).a[:4]
