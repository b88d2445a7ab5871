"""Ways of super-resolving a slice, 8 times in-plane, in tiles that cannot be seen: interpolation and a trained G1.

Anything that up-samples is an `Upsampler`. What it makes of a slice does not depend on the tiles that the slice is cut
into: nothing beyond the halo influences a tile, and a generator's noise belongs to the slice.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor

from microsr.core.provenance import checksum
from microsr.core.registry import load_thing
from microsr.core.registry.upsamplers import UPSAMPLERS
from microsr.core.scale import SCALE
from microsr.core.streams import Stream, philox_stream
from microsr.networks.devices import choose_device, choose_precision, keep_freed_memory
from microsr.networks.families import NO_SIDE, Sides, without_halo
from microsr.networks.layers import bicubic_upsample, nearest_upsample
from microsr.networks.model_file import load_generator
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

Region = tuple[slice, slice]
"""Rows and columns of a slice."""


class Upsampler(Protocol):
    """A way of super-resolving slices."""

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

        The first is `image` [1, 1, h, w] in HU; the last are `random`, on the device; the others do not depend on it.
        """
        ...

    def __call__(self, planes: list[Tensor], sides: Sides) -> Tensor:
        """A tile's planes, with a halo on some sides, to the tile's [1, 1, 8h, 8w] HU, float32, without the halo."""
        ...


class Interpolation:
    """An upsampler on the CPU that needs no model: a class of it has a name, a halo and `magnify`."""

    spacing_mm = None
    device = "cpu"
    inputs = {}  # noqa: RUF012

    def __init__(self, name: str, halo: int) -> None:
        self.halo = self.reach = halo
        self.facts = {"upsampler": name}

    def magnify(self, image: Tensor) -> Tensor:
        """A slice or a region of one [1, 1, h, w] in HU to [1, 1, 8h, 8w] HU, float32."""
        raise NotImplementedError

    def draw(self, index: int, size: tuple[int, int], number: int = 0) -> list[Tensor]:
        """Nothing."""
        return []

    def prepare(self, image: Tensor, random: list[Tensor]) -> list[Tensor]:
        """The image itself."""
        return [image]

    def __call__(self, planes: list[Tensor], sides: Sides) -> Tensor:
        """See `Upsampler`."""
        return without_halo(self.magnify(planes[0]), sides, SCALE * self.halo)


class Bicubic(Interpolation):
    """Cubic convolution, the paper's first baseline."""

    def __init__(self) -> None:
        super().__init__("bicubic", halo=2)

    def magnify(self, image: Tensor) -> Tensor:
        """See `Interpolation`."""
        return bicubic_upsample(image)


class Nearest(Interpolation):
    """Each clinical pixel as a block of 8 x 8: what there is without any interpolation."""

    def __init__(self) -> None:
        super().__init__("nearest", halo=0)

    def magnify(self, image: Tensor) -> Tensor:
        """See `Interpolation`."""
        return nearest_upsample(image.float())


BICUBIC = Bicubic()
NEAREST = Nearest()


class Known(Interpolation):
    """Takes the slices of a volume that is there already, as the truth: so it is judged as a method's result is.

    path: the volume, HU, on the super-resolved grid of all slices of the scan `clinical`, which is at `clinical_path`.

    Raises
    ------
    UserError
        It is not in HU, or does not lie where the scan does.
    """

    def __init__(self, path: Path, clinical: Volume, clinical_path: Path) -> None:
        super().__init__("known", halo=0)
        self._volume = open_volume(path)
        alignment.check_unit(self._volume, path)
        alignment.check_input(self._volume, path, clinical, clinical_path, list(range(clinical.shape[0])))
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


def interpolation(name: str) -> Upsampler:
    """The upsampler of this name, one of `core.registry.upsamplers`."""
    return load_thing(UPSAMPLERS[name])


class Generator:
    """A trained G1; what exceeds its intensity window (bone, say) is added back by interpolation, so that HU are kept.

    model: generator.pt. device: "auto", "cpu" or "cuda". precision: "auto", "float32" or "bfloat16", of the network's
    layers.

    Raises
    ------
    UserError
        The model cannot be used (see `networks.model_file.load_generator`), or there is no such device.
    """

    def __init__(self, model: Path, device: str = "auto", precision: str = "auto") -> None:
        self._g1, facts = load_generator(Path(model))
        self.device = choose_device(device)
        self._precision = choose_precision(precision, self.device)
        self._g1.fix()
        self._g1.to(self.device, memory_format=torch.channels_last)
        self._levels = LEVELS.to(self.device)
        self._window, self._seed = tuple(facts["window_hu"]), facts["seed"]
        self.halo = self._g1.magnify_halo
        self.reach = self.halo + self._g1.trunk_halo
        self.spacing_mm = facts["clinical_spacing_mm"]
        self.inputs = {Path(model): checksum(Path(model))}
        self.kind = facts.get("kind", "cyclegan")
        """Of method that it is a model of, as in methods.<name>.kind."""
        self.facts = {"upsampler": "generator", "model": self.inputs[Path(model)], "precision": self._precision}

    def draw(self, index: int, size: tuple[int, int], number: int = 0) -> list[Tensor]:
        """The slice's noise, a function of the model's seed, the slice's index and the draw.

        It is the same on every device.
        """
        bits = philox_stream(Stream.SLICE_PLANES, self._seed, index, *([number] if number else []))
        planes = []
        for shape in ((scale * size[0], scale * size[1]) for scale in self._g1.noise_scales):
            count = shape[0] * shape[1]
            drawn = bits.random_raw(-(-count // 4)).astype("<u8", copy=False).view("<i2")[:count]
            planes.append(torch.from_numpy(drawn).view(1, 1, *shape))
        return planes

    def prepare(self, image: Tensor, random: list[Tensor]) -> list[Tensor]:
        """The image, the features at its size that G1's first part makes of it, and the noise."""
        image = image.to(self.device, non_blocking=True)
        with self._autocast():
            features = _pieces(self._g1.trunk, normalise(image, self._window), self._g1.trunk_halo)
        return [image, features, *(plane.to(self.device, non_blocking=True) for plane in random)]

    def __call__(self, planes: list[Tensor], sides: Sides) -> Tensor:
        """See `Upsampler`."""
        image, features, *drawn = planes
        noise = [standard_normal(plane, self._levels) for plane in drawn]
        with self._autocast():
            a_sr = self._g1.magnify(normalise(image, self._window), features, noise, sides).float()
        excess = image - image.clamp(*self._window)
        a_sr = to_hu(a_sr, self._window)
        if image.is_cpu and not excess.any():  # a GPU would have to wait for the answer
            return a_sr
        return a_sr + without_halo(bicubic_upsample(excess), sides, SCALE * self.halo)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device, torch.bfloat16, enabled=self._precision == "bfloat16")


def standard_normal(drawn: Tensor, levels: Tensor = LEVELS) -> Tensor:
    """The noise that int16 numbers of LEVELS stand for, of the same shape."""
    return levels.index_select(0, drawn.flatten().int() + (1 << 15)).view(drawn.shape)


def _pieces(work: Callable[[Tensor], Tensor], image: Tensor, halo: int) -> Tensor:
    """`work` of an image [1, 1, h, w], in pieces of at most PIECE pixels a side: [1, channels, h, w]."""
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
        self._threads_before = torch.get_num_threads()
        keep_freed_memory()

    def __call__(
        self, hu: np.ndarray, random: list[Tensor], region: Region | None = None, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Super-resolve one slice, or a region of it; see `draws`."""
        return next(self.draws(hu, [random], region, dtype))

    @torch.inference_mode()
    def draws(
        self,
        hu: np.ndarray,
        randoms: Iterable[list[Tensor]],
        region: Region | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Iterator[Tensor]:
        """Super-resolve one slice, or a region of it, several times; what is not random is prepared once.

        hu: [rows, columns] in HU, float or int. randoms: what the upsampler drew for this slice, for each draw. Gives
        for each [8 rows, 8 columns] HU of the region on the upsampler's device, rounded if `dtype` is torch.int16.
        """
        size, upsampler = hu.shape, self._upsampler
        region = region or whole_slice(size)
        # What influences the region, and the region's place in it.
        (around,) = tiles(region, size, max(size), upsampler.reach)
        rows, columns = around.read
        image = torch.from_numpy(np.ascontiguousarray(hu[rows, columns], np.float32))[None, None]
        inner = tuple(slice(k.start - r.start, k.stop - r.start) for k, r in zip(region, around.read, strict=True))
        shape = tuple(SCALE * (span.stop - span.start) for span in region)
        fixed: list[Tensor] = []
        for random in randoms:
            own = [_cut(plane, around.read, size) for plane in random]
            if fixed:
                planes = [*fixed, *(plane.to(upsampler.device, non_blocking=True) for plane in own)]
            else:
                planes = upsampler.prepare(image, own)
                fixed = planes[: len(planes) - len(own)]
            result = torch.empty(shape, dtype=dtype, device=upsampler.device)
            work = [self._pool.submit(self._fill, result, planes, t, inner) for t in self._cut(inner, image.shape[-2:])]
            for done in work:
                done.result()
            yield result

    def _cut(self, region: Region, size: Sequence[int]) -> list[Tile]:
        return list(tiles(region, tuple(size), self._tile, self._upsampler.halo))

    @torch.inference_mode()
    def _fill(self, result: Tensor, planes: list[Tensor], tile: Tile, region: Region) -> None:
        """Put one tile in its place in `result`, which holds the region."""
        size, halo = tuple(planes[0].shape[-2:]), self._upsampler.halo
        sides = tile.sides if halo else NO_SIDE
        done = self._upsampler([_cut(plane, tile.read, size) for plane in planes], sides)[0, 0]
        pairs = zip(tile.keep, tile.read, tile.sides[::2], strict=True)
        offsets = [k.start - r.start - halo * side for k, r, side in pairs]
        done = done[
            tuple(slice(SCALE * o, SCALE * (o + k.stop - k.start)) for o, k in zip(offsets, tile.keep, strict=True))
        ]
        if result.dtype == torch.int16:
            limits = torch.iinfo(torch.int16)
            done = done.round().clamp_(limits.min, limits.max)
        place = (slice(k.start - r.start, k.stop - r.start) for k, r in zip(tile.keep, region, strict=True))
        result[tuple(_times(span, SCALE) for span in place)] = done

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


def _times(span: slice, scale: int) -> slice:
    return slice(scale * span.start, scale * span.stop)


def upsample_slice(
    hu: np.ndarray, index: int, upsampler: Upsampler, tile: int | None = None, draw: int = 0
) -> np.ndarray:
    """Super-resolve one slice.

    hu: float or int [rows, columns] in HU. index: the slice's number in its volume. draw: see `Upsampler.draw`. Returns
    float32 [8 rows, 8 columns] HU, the same for every `tile` up to float rounding.
    """
    with Magnifier(upsampler, tile) as magnify:
        return magnify(hu, upsampler.draw(index, hu.shape, draw)).cpu().numpy()
