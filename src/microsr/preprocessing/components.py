"""Connected components of masks that come slice by slice, kept in a few kB a slice.

A slice of a mask is a list of runs, each a row's pixels between two changes. Runs that overlap in neighbouring rows, or
in neighbouring slices, belong together: the components are those of `scipy.ndimage.label` with its default structure,
in 2-D or 3-D.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

from microsr.volume.slices import Slices


class Masks(Slices):
    """Masks, bool, packed; filled slice by slice in any order, false where nothing was filled in."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__(lambda z: unpack(self._packed[z], self.shape[1:]), shape, bool)
        self._packed = [b""] * len(self)

    def __setitem__(self, z: int, mask: np.ndarray) -> None:
        """Fill in a slice, bool [rows, columns]."""
        self._packed[z] = pack(mask)

    def packed_slice(self, z: int) -> bytes:
        """A slice as it is kept: the same bytes for the same mask, none for one that is false everywhere."""
        return self._packed[z]


def pack(mask: np.ndarray) -> bytes:
    """A mask in few bytes, none if it is false everywhere."""
    return zlib.compress(np.packbits(mask).data, 1) if mask.any() else b""


def unpack(packed: bytes, shape: tuple[int, int]) -> np.ndarray:
    """The mask [rows, columns] that `pack` packed."""
    if not packed:
        return np.zeros(shape, bool)
    bits = np.frombuffer(zlib.decompress(packed), np.uint8)
    return np.unpackbits(bits, count=shape[0] * shape[1]).view(bool).reshape(shape)


@dataclass(frozen=True)
class Runs:
    """A 2-D mask as its runs, in reading order: first pixel and end (excluded), counted along rows that are one pixel
    longer.

    That pixel keeps a run from going on in the next row.
    """

    first: np.ndarray
    end: np.ndarray
    shape: tuple[int, int]

    @classmethod
    def of(cls, mask: np.ndarray) -> Runs:
        """The runs of a mask, bool [rows, columns]."""
        wide = np.zeros(1 + mask.shape[0] * (mask.shape[1] + 1), bool)
        wide[1:].reshape(mask.shape[0], -1)[:, :-1] = mask
        changes = np.flatnonzero(wide[1:] != wide[:-1])
        return cls(changes[0::2], changes[1::2], mask.shape)

    def __len__(self) -> int:
        """Number of runs."""
        return len(self.first)

    @property
    def length(self) -> np.ndarray:
        """Pixels of each run."""
        return self.end - self.first

    @property
    def at_border(self) -> np.ndarray:
        """Whether each run touches the border of the image."""
        width, count = self.shape[1] + 1, self.shape[0] * (self.shape[1] + 1)
        sides = (self.first % width == 0) | (self.end % width == width - 1)
        return sides | (self.first < width) | (self.first >= count - width)

    def overlaps(self, other: Runs, shift: int = 0) -> tuple[np.ndarray, np.ndarray]:
        """Index of each run and of a run of `other` that have a pixel in common once these are moved by `shift`
        pixels.
        """
        first, end = self.first + shift, self.end + shift
        lowest = np.searchsorted(other.end, first, "right")
        count = np.searchsorted(other.first, end, "left") - lowest
        ones = np.repeat(np.arange(len(self)), count)
        before = np.cumsum(count) - count
        return ones, np.arange(len(ones)) + np.repeat(lowest - before, count)

    @cached_property
    def components(self) -> tuple[int, np.ndarray]:
        """Number of the connected components, and that of each run's component, in the order of their first runs."""
        return join_pairs(len(self), *self.overlaps(self, self.shape[1] + 1))

    @cached_property
    def component_sizes(self) -> np.ndarray:
        """Pixels of each component."""
        count, component = self.components
        return np.bincount(component, self.length, count).astype(np.int64)

    def component_sizes_within(self, mask: np.ndarray) -> np.ndarray:
        """Pixels of each component that are in `mask`, which holds no others."""
        inner, (count, component) = Runs.of(mask), self.components
        run = np.searchsorted(self.first, inner.first, "right") - 1
        return np.bincount(component[run], inner.length, count).astype(np.int64)

    def select(self, keep: np.ndarray) -> Runs:
        """The runs of the components to keep, which stay the same components."""
        component = self.components[1]
        runs = keep[component]
        rest = Runs(self.first[runs], self.end[runs], self.shape)
        rest.__dict__["components"] = int(keep.sum()), (np.cumsum(keep) - 1)[component[runs]]
        return rest

    def paint(self, values: np.ndarray | None = None) -> np.ndarray:
        """The image [rows, columns] in which each run has its value (None: true), and all else 0 (false)."""
        values = np.ones(len(self), bool) if values is None else values
        rows, width = self.shape[0], self.shape[1] + 1
        edges = np.zeros(2 * len(self) + 2, np.int64)
        edges[1:-1:2], edges[2:-1:2], edges[-1] = self.first, self.end, rows * width
        alternating = np.zeros(2 * len(self) + 1, values.dtype)
        alternating[1::2] = values
        return np.repeat(alternating, np.diff(edges)).reshape(rows, width)[:, :-1]


def join_pairs(count: int, ones: np.ndarray, others: np.ndarray) -> tuple[int, np.ndarray]:
    """Number of the groups among `count` things of which `ones` and `others` are tied pair by pair, and each thing's
    group.

    ones: ascending. Groups are numbered in the order of their first things.
    """
    rows = np.zeros(count + 1, np.int32)
    np.cumsum(np.bincount(ones, minlength=count), out=rows[1:])
    ties = csr_array((np.ones(len(ones)), others.astype(np.int32), rows), (count, count))
    return connected_components(ties, directed=False)


class Components:
    """Connected components, in 3-D, of a mask whose slices are added from the first to the last."""

    def __init__(self) -> None:
        self._offsets = [0]
        self._ties: list[tuple[np.ndarray, np.ndarray]] = []
        self._sizes: list[np.ndarray] = []
        self._last: Runs | None = None

    def add(self, runs: Runs) -> None:
        """Add the next slice."""
        count, component = runs.components
        offset = self._offsets[-1]
        if self._last is not None:
            before, here = self._last.overlaps(runs)
            pairs = np.unique(self._last.components[1][before] * np.int64(count) + component[here])
            self._ties.append(np.stack([pairs // count + self._offsets[-2], pairs % count + offset]))
        self._sizes.append(runs.component_sizes)
        self._offsets.append(offset + count)
        self._last = runs

    @cached_property
    def groups(self) -> tuple[int, np.ndarray]:
        """Number of components in 3-D, and the one of each component of a slice; all slices are added by now."""
        ties = np.concatenate([np.zeros((2, 0), np.int64), *self._ties], axis=1)
        return join_pairs(self._offsets[-1], *ties)

    @property
    def sizes(self) -> np.ndarray:
        """Voxels of each component."""
        count, group = self.groups
        return np.bincount(group, np.concatenate([np.zeros(0), *self._sizes]), count)

    def of_slice(self, z: int) -> np.ndarray:
        """Which component each component of slice `z` (`Runs.components`) belongs to."""
        return self.groups[1][self._offsets[z] : self._offsets[z + 1]]
