"""Every random stream by its name, so that no two draw the same numbers and each can be drawn again on its own.

A stream's numbers hang on its name, a seed and an index (a sample, a slice, a case) alone, so nothing hidden has to be
saved. Their keys are fixed for ever, as results depend on them: whoever wants other numbers takes a new name. So this
module is no part of `code_version`, and a new stream makes no result old.
"""

from __future__ import annotations

import zlib
from enum import IntEnum, unique
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch


@unique
class Stream(IntEnum):
    """The name of a stream; its number tells its key from the others'. In brackets, what its index is."""

    # 1 and 6 were of streams that are no more; no other one gets them.
    POOL = 2
    """Which of the older images a discriminator sees (step)."""
    PLANES = 3
    """The random planes of a generator in training (sample, use of a generator in the step)."""
    SLICE_PLANES = 4
    """The random planes of the trained G1 (slice, draw; the first draw has no number)."""
    FEATURES = 5
    """Windows on which the tissue network is trained."""
    FEATURE_WEIGHTS = 7
    """First weights of the tissue network."""
    FEATURE_WINDOWS = 8
    """Windows of the protocol `distribution`."""
    BRONCHIOLE_CONTROLS = 9
    """Places without an airway that airways are compared with (slice)."""
    BOOTSTRAP = 10
    """Airways and trainings that are drawn anew for an interval."""
    VALIDATION = 11
    """The simulator's checks beside the literature."""
    START_NOISE = 12
    """The noise that is added to the pairs of a start (sample)."""
    LUNGS = 21
    """Lungs and trainings that are drawn anew for an interval of a metric."""
    SCANNERS = 13
    """The scanners that uCT patches are seen through (CRC-32 of the case's name)."""
    PAIRS = 14
    """Which of its scans a uCT patch is paired with, and the scan's noise (sample)."""
    CANDIDATES = 23
    """Where airways and nodules are planted, and the grain, of images that metrics are shown."""
    SEARCH = 20
    """What a trial of a search has for its settings (CRC-32 of the trial's name)."""
    SCANS = 30
    """The noise of a uCT's scans (CRC-32 of the case's name)."""
    EXPORTED = 31
    """The made-up scan and random planes by which an exported model is compared with the network."""

    # Their keys hold no number.
    TEXTURE_WINDOWS = 100
    """Windows of the spectrum and the histogram."""
    CASE = 101
    """A simulated case (its name)."""
    PATCHES = 102
    """Places of training patches (case and modality)."""
    ORDER = 103
    """Which patch is when (modality, epoch)."""
    WEIGHTS = 104
    """First weights of a CycleGAN: of PyTorch, no NumPy stream."""


def key(stream: Stream, seed: int, *index: int | str) -> list[int]:
    """What a stream's numbers are made from: whole numbers that no other stream, and no other index, has.

    Most are [seed, index, number of the stream, rest of the index], with index 0 where there is none. NumPy takes [a]
    for [a, 0, 0, 0], and else no two lists for the same. What tells them apart is the third number: the stream's in
    most; 0 after a case's checksum and after nothing; a letter of a name, which is 32 or more, in the others.
    """
    if stream is Stream.TEXTURE_WINDOWS:
        return [seed]
    first: Any
    rest: list[Any]
    first, *rest = index or (0,)
    if stream is Stream.CASE:
        return [seed, zlib.crc32(first.encode())]
    if stream in (Stream.PATCHES, Stream.ORDER):
        return [seed, *first.encode(), *rest]
    return [seed, first, stream.value, *rest]


def numpy_stream(stream: Stream, seed: int, *index: int | str) -> np.random.Generator:
    """NumPy's generator of a stream."""
    return np.random.default_rng(key(stream, seed, *index))


def philox_stream(stream: Stream, seed: int, *index: int | str) -> np.random.Philox:
    """A bit generator whose raw numbers are the same on every platform, of a stream."""
    return np.random.Philox(np.random.SeedSequence(key(stream, seed, *index)))


def torch_stream(stream: Stream, seed: int, *index: int | str, device: torch.device | str) -> torch.Generator:
    """PyTorch's generator of a stream, on a device."""
    import torch

    return torch.Generator(device).manual_seed(_torch_seed(stream, seed, *index))


def seed_torch(stream: Stream, seed: int) -> None:
    """Let PyTorch draw first weights from a stream, whatever it drew before."""
    import torch

    torch.manual_seed(seed if stream is Stream.WEIGHTS else _torch_seed(stream, seed))


def _torch_seed(stream: Stream, seed: int, *index: int | str) -> int:
    entropy = np.random.SeedSequence(key(stream, seed, *index)).generate_state(1, np.uint64)
    return int(entropy[0] >> 1)
