"""Ways of super-resolving a slice, in-plane, in tiles that cannot be seen: interpolation and a trained G1.

Anything that up-samples is an `Upsampler`. What it makes of a slice does not depend on the tiles that the slice is cut
into: nothing beyond the halo influences a tile, and a generator's noise belongs to the slice.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from microsr.config import DEFAULT_SCALE
from microsr.core.provenance import checksum
from microsr.core.registry import load_thing
from microsr.core.registry.upsamplers import UPSAMPLERS
from microsr.core.streams import Stream, philox_stream
from microsr.networks.devices import choose_device, choose_precision, keep_freed_memory
from microsr.networks.families import NO_SIDE, Sides, own_slice, without_halo
from microsr.networks.layers import bicubic_upsample, nearest_upsample
from microsr.networks.safetensors_file import load_model
from microsr.physics.window import normalise, to_hu
from microsr.volume import alignment
from microsr.volume.storage import Volume, open_volume

TILE = {"cpu": 64, "cuda": 256}
"""Side of a tile, clinical pixels, at which a network is fast: a CPU's caches hold it, a GPU is kept busy."""
PIECE = 512
"""Side of the largest piece of a slice that goes through a network's first part at once, clinical pixels."""
LEVELS = torch.from_numpy(ndtri((np.arange(1 << 16) + 0.5) / (1 << 16)).astype(np.float32))
"""Noise takes these values, the standard normal distribution in equal shares: it is drawn as int16 numbers of them,
which takes a fifth of the time and half the memory."""

WORD = 4
"""Noise in one number of 64 bits, of which Philox makes as many at a time."""

Region = tuple[slice, slice]
"""Rows and columns of a slice."""


class Upsampler(Protocol):
    """A way of super-resolving slices."""

    scale: int
    """Pixels that it makes of a clinical one, along a side."""
    slices: int
    """Slices that it sees, the one to super-resolve in the middle."""
    slice_mm: Sequence[float] | None
    """Smallest and largest distance of the slices that it was trained for, mm; None: it sees single slices."""
    halo: int
    """Clinical pixels around a tile that influence it, once the whole slice is prepared."""
    reach: int
    """Clinical pixels around a tile that influence it in all."""
    spacing_mm: float | None
    """Pixel size that it was trained for, mm; None: any, or unknown."""
    device: str
    """Where it works, "cpu" or "cuda"."""
    facts: dict[str, Any]
    """What decides its results: goes into the output's attributes and the record of the run."""
    inputs: dict[Path, str]
    """Files that decide its results, with their checksums."""

    def draw(self, index: int, size: tuple[int, int], number: int = 0) -> list[Tensor]:
        """What is random about the whole slice `index` of `size` (rows, columns): planes at several scales, cut like
        the slice.

        number: from 0 on, which of the images that the scan allows; other numbers draw independently.
        """
        ...

    def prepare(self, image: Tensor, random: list[Tensor]) -> list[Tensor]:
        """Planes at several scales, all cut like the slice, that tiles are made of.

        The first is that of `image` [1, slices, h, w], HU, which is super-resolved; the last are `random`, on the
        device; the others do not depend on it.
        """
        ...

    def __call__(self, planes: list[Tensor], sides: Sides) -> Tensor:
        """A tile's planes, with a halo on some sides, to the tile's [1, 1, scale * h, scale * w] HU, float32, without
        the halo.
        """
        ...


class Interpolation:
    """An upsampler on the CPU that needs no model: a class of it has a name, a halo and `magnify`."""

    name: str
    halo: int
    slices = 1
    slice_mm: Sequence[float] | None = None
    spacing_mm = None
    device = "cpu"
    inputs = {}  # noqa: RUF012

    def __init__(self, scale: int = DEFAULT_SCALE) -> None:
        """scale: pixels to make of a clinical one, along a side."""
        self.scale, self.reach = scale, self.halo
        self.facts = {"upsampler": self.name}

    def magnify(self, image: Tensor) -> Tensor:
        """A slice or a region of one [1, 1, h, w] in HU to [1, 1, scale * h, scale * w] HU, float32."""
        raise NotImplementedError

    def draw(self, index: int, size: tuple[int, int], number: int = 0) -> list[Tensor]:
        """Nothing."""
        return []

    def prepare(self, image: Tensor, random: list[Tensor]) -> list[Tensor]:
        """The image itself."""
        return [image]

    def __call__(self, planes: list[Tensor], sides: Sides) -> Tensor:
        """See `Upsampler`."""
        return without_halo(self.magnify(planes[0]), sides, self.scale * self.halo)


class Bicubic(Interpolation):
    """Cubic convolution, the paper's first baseline."""

    name, halo = "bicubic", 2

    def magnify(self, image: Tensor) -> Tensor:
        """See `Interpolation`."""
        return bicubic_upsample(image, self.scale)


class Nearest(Interpolation):
    """Each clinical pixel as a block of scale x scale: what there is without any interpolation."""

    name, halo = "nearest", 0

    def magnify(self, image: Tensor) -> Tensor:
        """See `Interpolation`."""
        return nearest_upsample(image.float(), self.scale)


class Known(Interpolation):
    """Takes the slices of a volume that is there already, as the truth: so it is judged as a method's result is.

    path: the volume, HU, on the super-resolved grid of all slices of the scan `clinical`, which is at `clinical_path`;
    its scale is the ratio of their sizes.

    Raises
    ------
    UserError
        It is not in HU, or does not lie where the scan does.
    """

    name, halo = "known", 0

    def __init__(self, path: Path, clinical: Volume, clinical_path: Path) -> None:
        self._volume = open_volume(path)
        alignment.check_unit(self._volume, path)
        slices = list(range(clinical.shape[0]))
        super().__init__(alignment.check_input(self._volume, path, clinical, clinical_path, slices))
        self.inputs = {path: checksum(path)}
        self.facts |= {"volume": self.inputs[path]}

    def draw(self, index: int, size: tuple[int, int], number: int = 0) -> list[Tensor]:
        """The slice as it is known: one plane, at the super-resolved size."""
        return [torch.from_numpy(np.asarray(self._volume.array[index], np.float32))[None, None]]

    def prepare(self, image: Tensor, random: list[Tensor]) -> list[Tensor]:
        """The scan's slice, which only says how the tiles are cut, and the known one."""
        return [image, *random]

    def __call__(self, planes: list[Tensor], sides: Sides) -> Tensor:
        """See `Upsampler`."""
        return planes[1]


def interpolation(name: str, scale: int = DEFAULT_SCALE) -> Upsampler:
    """The upsampler of this name, one of `core.registry.upsamplers`, for a scale."""
    return load_thing(UPSAMPLERS[name])(scale)


class Generator:
    """A trained G1; what exceeds its intensity window (bone, say) is added back by interpolation, so that HU are kept.

    model: generator.pt or .safetensors. device: "auto", "cpu" or "cuda". precision: "auto", "float32" or "bfloat16", of
    the network's layers.

    Raises
    ------
    UserError
        The model cannot be used (see `networks.safetensors_file.load_model`), or there is no such device.
    """

    def __init__(self, model: Path, device: str = "auto", precision: str = "auto") -> None:
        self._g1, facts = load_model(Path(model))
        self.device = choose_device(device)
        self._precision = choose_precision(precision, self.device)
        self._g1.fix()
        self._g1.to(self.device, memory_format=torch.channels_last)
        self._levels = LEVELS.to(self.device)
        self._window, self._seed = tuple(facts["window_hu"]), facts["seed"]
        self.scale, self.halo = self._g1.scale, self._g1.magnify_halo
        self.reach = self.halo + self._g1.trunk_halo
        self.spacing_mm = facts["clinical_spacing_mm"]
        self.slices = facts.get("slices", 1)
        self.slice_mm = facts.get("slice_mm")
        self.inputs = {Path(model): checksum(Path(model))}
        self.kind = facts.get("kind", "cyclegan")
        """Of method that it is a model of, as in methods.<name>.kind."""
        self.facts = {"upsampler": "generator", "model": self.inputs[Path(model)], "precision": self._precision}

    def draw(self, index: int, size: tuple[int, int], number: int = 0, part: Region | None = None) -> list[Tensor]:
        """The slice's noise, or that of a part of it, a function of the model's seed, the slice's index and the draw.

        It is the same on every device. part: clinical pixels; None: all.
        """
        numbers = _Int16s(philox_stream(Stream.SLICE_PLANES, self._seed, index, *([number] if number else [])))
        planes, first = [], 0
        for scale in self._g1.noise_scales:
            rows, columns = (_times(span, scale) for span in part or whole_slice(size))
            high, wide = (scale * n for n in size)
            if (columns.start, columns.stop) == (0, wide):
                drawn = numbers.take(first + rows.start * wide, (rows.stop - rows.start) * wide)
            else:
                count = columns.stop - columns.start
                lines = range(first + rows.start * wide + columns.start, first + rows.stop * wide, wide)
                drawn = np.concatenate([numbers.take(line, count) for line in lines])
            planes.append(torch.from_numpy(drawn).view(1, 1, rows.stop - rows.start, columns.stop - columns.start))
            first += -(-high * wide // WORD) * WORD  # each plane begins with a number of 64 bits
        return planes

    def prepare(self, image: Tensor, random: list[Tensor]) -> list[Tensor]:
        """The image, the features at its size that G1's first part makes of it, and the noise."""
        image = image.to(self.device, non_blocking=True)
        with self._autocast():
            features = _pieces(self._g1.trunk, normalise(image, self._window), self._g1.trunk_halo)
        return [own_slice(image), features, *(plane.to(self.device, non_blocking=True) for plane in random)]

    def __call__(self, planes: list[Tensor], sides: Sides) -> Tensor:
        """See `Upsampler`."""
        image, features, *drawn = planes
        return next(self.draws([image, features], [drawn], sides))

    def draws(self, planes: list[Tensor], randoms: Iterable[list[Tensor]], sides: Sides) -> Iterator[Tensor]:
        """A tile's planes without noise, and its noise in each of several draws, to each draw's
        [1, 1, scale * h, scale * w] HU.

        What does not hang on the noise is computed once, as far as the network allows it.
        """
        image, features = planes
        a, excess = normalise(image, self._window), image - image.clamp(*self._window)
        beyond = None
        if not image.is_cpu or excess.any():  # a GPU would have to wait for the answer
            beyond = without_halo(bicubic_upsample(excess, self.scale), sides, self.scale * self.halo)
        with self._autocast():
            shared = self._g1.share(a, features, sides) if hasattr(self._g1, "share") else None
        for random in randoms:
            noise = [standard_normal(plane, self._levels) for plane in random]
            with self._autocast():
                if shared is None:
                    a_sr = self._g1.magnify(a, features, noise, sides)
                else:
                    a_sr = self._g1.finish(shared, noise, sides)
            a_sr = to_hu(a_sr.float(), self._window)
            yield a_sr if beyond is None else a_sr + beyond

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device, torch.bfloat16, enabled=self._precision == "bfloat16")


class _Int16s:
    """The numbers of a Philox, each of 64 bits taken for WORD of int16, from any place on."""

    def __init__(self, bits: np.random.Philox) -> None:
        self._bits, self._made = bits, 0

    def take(self, first: int, count: int) -> np.ndarray:
        """int16 [count] from the number `first` on."""
        step = WORD * WORD  # a turn of Philox
        start, end = first // step, -(-(first + count) // step)
        self._bits.advance((start - self._made) % (1 << 256))
        self._made = end
        made = self._bits.random_raw((end - start) * WORD).astype("<u8", copy=False).view("<i2")
        return made[first - start * step :][:count]


def standard_normal(drawn: Tensor, levels: Tensor = LEVELS) -> Tensor:
    """The noise that int16 numbers of LEVELS stand for, of the same shape."""
    return levels.index_select(0, drawn.flatten().int() + (1 << 15)).view(drawn.shape)


def _pieces(work: Callable[[Tensor], Tensor], image: Tensor, halo: int) -> Tensor:
    """`work` of an image [1, slices, h, w], in pieces of at most PIECE pixels a side: [1, channels, h, w]."""
    size = tuple(image.shape[-2:])
    if max(size) <= PIECE:
        return work(image)
    whole = None
    for tile in tiles((slice(0, size[0]), slice(0, size[1])), size, PIECE, halo):
        rows, columns = (slice(k.start - r.start, k.stop - r.start) for k, r in zip(tile.keep, tile.read, strict=True))
        done = work(image[(..., *tile.read)].contiguous())
        if whole is None:
            shape = (1, done.shape[1], *size)
            whole = torch.empty(shape, dtype=done.dtype, device=done.device, memory_format=torch.channels_last)
        whole[(..., *tile.keep)] = done[..., rows, columns]
    return whole


class Tile(NamedTuple):
    """What to read of a slice, what to keep of it, and on which sides what is read ends in a halo, not at the slice's
    border.
    """

    read: Region
    keep: Region
    sides: Sides


def tiles(region: Region, size: tuple[int, int], tile: int, halo: int) -> Iterator[Tile]:
    """Cut a region of a slice of `size` (rows, columns) into tiles of at most `tile` pixels a side.

    At the slice's border there is no halo: a network pads a tile there as it would pad the whole slice. A tile that is
    nearer to the border than a halo is read up to the border.
    """
    for top, left in itertools.product(*(range(span.start, span.stop, tile) for span in region)):
        keep = [slice(start, min(start + tile, span.stop)) for start, span in zip((top, left), region, strict=True)]
        inner = [(k.start > halo, k.stop < n - halo) for k, n in zip(keep, size, strict=True)]
        read = [
            slice(k.start - halo if first else 0, k.stop + halo if last else n)
            for k, (first, last), n in zip(keep, inner, size, strict=True)
        ]
        yield Tile(tuple(read), tuple(keep), (*inner[0], *inner[1]))


def whole_slice(size: Sequence[int]) -> Region:
    """All rows and columns."""
    return slice(0, size[0]), slice(0, size[1])


class Magnifier:
    """Super-resolves slices with an upsampler, tile by tile, on a CPU as many tiles at once as there are threads.

    A context, which ends the threads. tile: side of a tile, clinical pixels; None: what suits the device. The largest
    memory is a few tiles' and slices'.
    """

    def __init__(self, upsampler: Upsampler, tile: int | None = None, threads: int = 1) -> None:
        self._upsampler, self._threads = upsampler, threads if upsampler.device == "cpu" else 1
        self._tile = tile or TILE[upsampler.device]
        self._pool = ThreadPoolExecutor(self._threads, initializer=torch.set_num_threads, initargs=(1,))
        self._threads_before, self._naming = torch.get_num_threads(), threading.Lock()
        keep_freed_memory()

    @torch.inference_mode()
    def __call__(
        self, hu: np.ndarray, random: list[Tensor], region: Region | None = None, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Super-resolve one slice, or a region of it.

        hu: [rows, columns] in HU, float or int, or with its neighbours [slices, rows, columns]. random: what the
        upsampler drew for this slice. Returns [scale * rows, scale * columns] HU of the region on the upsampler's
        device, rounded if `dtype` is torch.int16.
        """
        size = hu.shape[-2:]
        region = region or whole_slice(size)
        image, around, inner = self._around(hu, region)
        planes = self._upsampler.prepare(image, [_cut(plane, around, size) for plane in random])
        result = torch.empty(_magnify_size(region, self._upsampler.scale), dtype=dtype, device=self._upsampler.device)

        def fill(tile: Tile) -> None:
            done = self._upsampler([_cut(plane, tile.read, image.shape[-2:]) for plane in planes], self._sides(tile))
            done = done[0, 0][self._find_kept(tile)]
            if dtype == torch.int16:
                limits = torch.iinfo(torch.int16)
                done = done.round().clamp_(limits.min, limits.max)
            result[_place(tile, inner, self._upsampler.scale)] = done

        self._work(fill, inner, image)
        return result

    @torch.inference_mode()
    def several(
        self, hu: np.ndarray, index: int, numbers: Sequence[int],
        gather: Callable[[Iterator[Tensor]], dict[str, np.ndarray]], region: Region | None = None,
    ) -> dict[str, np.ndarray]:  # fmt: skip
        """What `gather` makes of several draws of a slice, or a region of it, by a trained G1.

        hu: as above. index: the slice's number in its volume. numbers: of the draws. gather: from the draws of a tile,
        [scale * h, scale * w] HU each, to images of it by their names. Returns those of the region. Tile after tile, so
        that what does not hang on the noise is computed once, and the memory does not grow with the number of draws.
        """
        whole_size = hu.shape[-2:]
        region = region or whole_slice(whole_size)
        image, around, inner = self._around(hu, region)
        generator = cast(Generator, self._upsampler)
        found: dict[str, np.ndarray] = {}
        planes, size = generator.prepare(image, []), image.shape[-2:]

        def fill(tile: Tile) -> None:
            read = tuple(_shift(span, start.start) for span, start in zip(tile.read, around, strict=True))
            randoms = (
                [p.to(generator.device, non_blocking=True) for p in generator.draw(index, whole_size, number, read)]
                for number in numbers
            )
            cut = [_cut(plane, tile.read, size) for plane in planes]
            draws = (draw[0, 0][self._find_kept(tile)] for draw in generator.draws(cut, randoms, self._sides(tile)))
            for name, part in gather(draws).items():
                with self._naming:
                    whole = found.setdefault(name, np.empty(_magnify_size(region, generator.scale), part.dtype))
                whole[_place(tile, inner, generator.scale)] = part

        self._work(fill, inner, image)
        return found

    def _around(self, hu: np.ndarray, region: Region) -> tuple[Tensor, Region, Region]:
        """What influences the region, [1, slices, rows, columns] HU, where it is in the slice, and the region in it."""
        size = hu.shape[-2:]
        (around,) = tiles(region, size, max(size), self._upsampler.reach)
        cut = np.ascontiguousarray(hu[(..., *around.read)], np.float32)
        image = torch.from_numpy(cut.reshape(1, -1, *cut.shape[-2:]))
        inner = tuple(_shift(span, -read.start) for span, read in zip(region, around.read, strict=True))
        return image, around.read, inner

    def _work(self, fill: Callable[[Tile], None], inner: Region, image: Tensor) -> None:
        """Fill all tiles of a region of an image."""

        @torch.inference_mode()
        def fill_one(tile: Tile) -> None:
            fill(tile)

        cut = tiles(inner, tuple(image.shape[-2:]), self._tile, self._upsampler.halo)
        for done in [self._pool.submit(fill_one, tile) for tile in cut]:
            done.result()

    def _sides(self, tile: Tile) -> Sides:
        return tile.sides if self._upsampler.halo else NO_SIDE

    def _find_kept(self, tile: Tile) -> Region:
        """What is kept of a tile that has been magnified, without its halo."""
        pairs = zip(tile.keep, tile.read, tile.sides[::2], strict=True)
        offsets = [k.start - r.start - self._upsampler.halo * side for k, r, side in pairs]
        scale = self._upsampler.scale
        return tuple(slice(scale * o, scale * (o + k.stop - k.start)) for o, k in zip(offsets, tile.keep, strict=True))

    def __enter__(self) -> Magnifier:
        """Itself."""
        torch.set_num_threads(self._threads)
        return self

    def __exit__(self, *error: object) -> None:
        """End its threads."""
        torch.set_num_threads(self._threads_before)
        self._pool.shutdown()


def _cut(plane: Tensor, region: Region, size: Sequence[int]) -> Tensor:
    """A region, in pixels of a slice of `size`, of a plane at any scale."""
    scale = plane.shape[-1] // size[1]
    return plane[(..., *(_times(span, scale) for span in region))]


def _place(tile: Tile, region: Region, scale: int) -> Region:
    """Where a tile lies in the magnified region, in pixels of that."""
    return tuple(_times(_shift(k, -r.start), scale) for k, r in zip(tile.keep, region, strict=True))


def _magnify_size(region: Region, scale: int) -> tuple[int, int]:
    return tuple(scale * (span.stop - span.start) for span in region)


def _times(span: slice, scale: int) -> slice:
    return slice(scale * span.start, scale * span.stop)


def _shift(span: slice, by: int) -> slice:
    return slice(span.start + by, span.stop + by)


def upsample_slice(
    hu: np.ndarray, index: int, upsampler: Upsampler, tile: int | None = None, draw: int = 0
) -> np.ndarray:
    """Super-resolve one slice.

    hu: float or int [rows, columns] in HU, or with its neighbours [slices, rows, columns]. index: the slice's number in
    its volume. draw: see `Upsampler.draw`. Returns float32 [scale * rows, scale * columns] HU, the same for every
    `tile` up to float rounding.
    """
    with Magnifier(upsampler, tile) as magnify:
        return magnify(hu, upsampler.draw(index, hu.shape[-2:], draw)).cpu().numpy()
