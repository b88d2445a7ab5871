"""Volumes slice by slice: arrays that read what is indexed, and threads that work on a few slices at a time.

A whole volume may be larger than the memory; a step that goes through it by `in_order` holds a few slices of it.
"""

from __future__ import annotations

import functools
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from microsr.core.errors import UserError

THREADS = min(4, os.cpu_count() or 1)
"""Slices that are worked on at once; NumPy, SciPy, the readers and the compressor let each other run."""

KEPT_BYTES = 30 << 20
"""Freed memory up to which the C library keeps a block."""

Item = TypeVar("Item")
Result = TypeVar("Result")


class Slices:
    """An array [slices, rows, columns] of which only the slices that are indexed are read.

    load: gives the slice [rows, columns] at an index; several threads may call it at once. window: gives rows and
    columns of it, where that can be done without all of it. It is indexed as an array whose first axis takes a number
    or a range; `np.asarray` reads all of it.
    """

    ndim = 3

    def __init__(
        self,
        load: Callable[[int], np.ndarray],
        shape: tuple[int, int, int],
        dtype: Any,
        window: Callable[[int, slice, slice], np.ndarray] | None = None,
    ) -> None:
        self.load = load
        self._window = window
        self.shape = tuple(int(n) for n in shape)
        self.dtype = np.dtype(dtype)

    def __len__(self) -> int:
        """Number of slices."""
        return self.shape[0]

    def __iter__(self) -> Iterator[np.ndarray]:
        """One slice after the other."""
        return (self.load(z) for z in range(len(self)))

    def __getitem__(self, key: Any) -> np.ndarray:
        """Read a slice [rows, columns], or a range of them, or a part of either."""
        first, *rest = key if isinstance(key, tuple) else (key,)
        chosen = range(len(self))[first]
        if isinstance(chosen, int):
            image = self.load(chosen)
            return image[tuple(rest)] if rest else image
        stack = np.empty((len(chosen), *self.shape[1:]), self.dtype)
        for position, z in enumerate(chosen):
            stack[position] = self.load(z)
        return stack[(slice(None), *rest)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """Read all."""
        return self[:] if dtype is None else self[:].astype(dtype, copy=False)

    def window(self, z: int, rows: slice, columns: slice) -> np.ndarray:
        """Read rows and columns of a slice."""
        return self.load(z)[rows, columns] if self._window is None else self._window(z, rows, columns)

    def take(self, first: int, end: int) -> Slices:
        """The slices first to end (excluded), still unread."""
        shape = (end - first, *self.shape[1:])
        return Slices(lambda z: self.load(first + z), shape, self.dtype, lambda z, *area: self.window(first + z, *area))

    def crop(self, rows: slice, columns: slice) -> Slices:
        """Rows and columns of each slice, still unread."""
        shape = (len(self), rows.stop - rows.start, columns.stop - columns.start)
        return Slices(lambda z: self.window(z, rows, columns), shape, self.dtype)

    def refuse_nan(self, where: str) -> Slices:
        """The same, still unread, of which no slice with NaN or infinite values is read; where: the file, to name."""

        def load(z: int) -> np.ndarray:
            image = self.load(z)
            if not (np.isfinite(image.min()) and np.isfinite(image.max())):
                raise UserError(f"{where}: holds values that are not numbers (NaN or infinite); mend the volume")
            return image

        return Slices(load, self.shape, self.dtype)


def take_slices(read: Callable[[int], np.ndarray], index: int, count: int, slices: int) -> np.ndarray:
    """A slice [rows, columns] of `count`, or of several with its neighbours [slices, rows, columns], itself in the
    middle; at either end of the volume its last slice is repeated. read: gives the slice at an index.
    """
    if slices == 1:
        return np.asarray(read(index))
    around = range(index - slices // 2, index + slices // 2 + 1)
    return np.stack([np.asarray(read(min(max(z, 0), count - 1))) for z in around])


def in_order(work: Callable[[Item], Result], items: Iterable[Item], threads: int = THREADS) -> Iterator[Result]:
    """work(item) of each item in turn, computed in threads, at most two more than there are threads at a time."""
    _keep_freed_memory()
    waiting: deque = deque()
    with ThreadPoolExecutor(threads) as pool:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > threads + 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


@functools.cache
def _keep_freed_memory() -> None:
    """Let the C library keep the memory of freed slices: page by page, fetching it anew costs more than most work on a
    slice.

    glibc keeps blocks up to the size of the largest that was freed, at most 32 MB.
    """
    np.empty(KEPT_BYTES, np.uint8)


def refuse_constant(low: float, high: float, where: str) -> None:
    """Refuse a volume of lowest and highest value `low` and `high` that has no content.

    Raises
    ------
    UserError
        They are the same.
    """
    if low == high:
        raise UserError(f"{where}: is constant ({low} everywhere); give a volume with content")
