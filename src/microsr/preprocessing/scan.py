"""A uCT volume scanned by the simulated clinical scanner: a clinical CT whose truth is known, of any structure.

In: any volume that `microsr volumes micro` reads, calibrated in the same way, or in HU already. Out: the clinical CT in
a format of clinical CT, in the place of the uCT; on demand what it shows at an eighth of its pixel size (truth, and the
truth averaged over the slice profile), the scan without its noise and a second scan with other noise. The scanner is
`physics.scanner`'s, as in the simulated lungs; the uCT goes through slice by slice.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from microsr import config
from microsr.config.sheet import Scan
from microsr.core.errors import UserError
from microsr.core.files import replacing
from microsr.core.progress import Progress, logger
from microsr.core.provenance import absolute, checksums_beside, write_run
from microsr.core.streams import Stream, numpy_stream
from microsr.formats.outputs import FORMATS, Writer, check_replaceable, kind_of, open_writer
from microsr.formats.readers import read_scan
from microsr.physics.scanner import KERNELS, Projection, Sums, add_noise, noise_slices, sampling
from microsr.preprocessing.calibration import Mapping as Calibrated
from microsr.preprocessing.hounsfield import as_int16
from microsr.preprocessing.masks import Padding
from microsr.preprocessing.plausible import check_micro
from microsr.preprocessing.regions.find import CALIBRATION_SLICES, outline_and_calibrate, read_given_mask
from microsr.preprocessing.resampling import UPSAMPLING, bands, in_plane, interpolation_weights
from microsr.volume.slices import in_order
from microsr.volume.storage import Volume, is_volume, magnified_geometry, open_volume

FWHM = 2 * math.sqrt(2 * math.log(2))
"""Width of a Gaussian at half of its height, in standard deviations."""
NO_HU = 10_000
"""A volume with more than a hundredth of its voxels above this is not in HU."""
WHOLE = 1e-6
"""Share of a pixel by which a field may fall short of holding it."""
KNOWN = {
    "truth": "uCT at 1/{scale} of the clinical pixel",
    "thick_truth": "uCT at 1/{scale} of the clinical pixel, averaged over the slice profile",
    "noise_free": "simulated clinical CT of a uCT volume, without noise",
    "repeat": "simulated clinical CT of a uCT volume, scanned again",
}
"""What may be written beside the clinical CT, and how it is described, with the scale filled in."""
OF_A_SCAN = ("sampling", "matched_spacing_mm", "area_average")
"""Settings of the import of uCT that decide nothing here."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Flags of `microsr scan`."""
    parser.add_argument(
        "input", metavar="MICRO", help="uCT volume: file, folder of 2-D images or of a DICOM series, or URL of a store"
    )
    config.add_scan_flags(parser)
    parser.add_argument("--mask_file", help="label volume on the uCT's grid, for the calibration; for mask file")
    parser.add_argument(
        "--output", type=Path, required=True, help="clinical CT: .nii, .nii.gz, .nrrd, .mha, .ome.zarr; DICOM: a folder"
    )
    parser.add_argument("--format", choices=FORMATS, help="of the clinical CT; default: what its ending says")
    for name, what in KNOWN.items():
        parser.add_argument(f"--{name}", type=Path, help=f"also write this: {what.format(scale='scale')}")
    parser.add_argument("--case", default="scan", help="name of the case; decides, with the seed, the noise")
    parser.add_argument("--seed", type=int, default=1, help="seed of the noise (default: 1)")
    config.add_display(parser)
    config.add_scale(parser)
    config.add_flags(parser, config.MicroScan, without=["micro"])
    config.add_flags(parser, config.Scanner)
    config.add_flags(parser, config.MicroVolume, without=OF_A_SCAN)


def main(namespace: argparse.Namespace) -> None:
    """Run `microsr scan`."""
    outputs = {"clinical": namespace.output}
    outputs |= {name: path for name in KNOWN if (path := getattr(namespace, name)) is not None}
    scan_micro(
        config.scan_from_flags(namespace), outputs, namespace.case, namespace.seed,
        config.from_flags(namespace, config.MicroVolume), config.from_flags(namespace, config.Scanner),
        config.from_flags(namespace, config.MicroScan).slice_spacing_mm, namespace.format, namespace.mask_file,
        namespace.scale, config.display_from_flags(namespace),
    )  # fmt: skip


def scan_micro(
    scan: Scan,
    outputs: Mapping[str, Path],
    case: str,
    seed: int,
    settings: config.MicroVolume,
    scanner: config.Scanner,
    slice_mm: float,
    kind: str | None = None,
    mask: str | None = None,
    scale: int = config.DEFAULT_SCALE,
    shown: dict[str, list[float]] | None = None,
) -> None:
    """Scan a uCT volume as a clinical scanner would, and write the scan and what is known of it, all of it or nothing.

    outputs: where to, by "clinical" and names in KNOWN; formats by the paths' endings, that of the clinical CT by
    `kind` if given. settings: its calibration counts, and the mask that this looks at; mask: that in a file. slice_mm:
    distance of the clinical slices. scale: clinical pixel / pixel of the truth. shown: the outputs' attribute
    `display`, if it is chosen. Pixels and slices start at the edges of
    the volume, and none reaches beyond it. Where slice profile and point-spread function do, there is nothing, and the
    weights of what is there are scaled to sum 1. Case and seed decide the noise.

    Raises
    ------
    UserError
        The volume cannot be read or calibrated with certainty, has no distance of slices, is coarser than the scan or
        its truth, or smaller than a clinical voxel; an output cannot be written.
    """
    started = time.time()
    outputs = {name: Path(path) for name, path in outputs.items()}
    kinds = _check_outputs(outputs, scan.path, kind)
    outputs["clinical"].parent.mkdir(parents=True, exist_ok=True)
    with checksums_beside([scan.path, *([mask] if mask is not None else [])]) as checksums:
        volume = read_scan(scan, outputs["clinical"].parent)
        known = any(name in outputs for name in ("truth", "thick_truth"))
        view = View(volume, scanner, slice_mm, scan.path, known, scale)
        hu, facts = _open_hu(volume, settings, scan, mask, outputs["clinical"].parent)
        made_of = sorted(checksums().values()) if "dicom" in kinds.values() else None
        like = {name: view.describe(name, case, scanner, facts, volume) for name in outputs}
        for one in like.values():
            one.attributes.update(shown or {})
        with contextlib.ExitStack() as files:
            writers = {
                name: _open_writer(files, path, kinds[name], like[name], view.shape_of(name), made_of)
                for name, path in outputs.items()
            }
            _write(writers, view, hu, scanner, slice_mm, numpy_stream(Stream.SCANS, seed, zlib.crc32(case.encode())))
        slices, rows, columns = view.shape
        logger.info(
            "%d slices of %d x %d, %.4g x %.4g x %.4g mm, of a uCT of %.4g mm",
            *(slices, columns, rows, *view.spacing, volume.spacing[0]),
        )
        chosen = {"scan": scan.model_dump(), "case": case, "seed": seed, "slice_spacing_mm": slice_mm, "scale": scale}
        chosen |= settings.model_dump(mode="json", exclude=set(OF_A_SCAN)) | scanner.model_dump(mode="json")
        written = {name: str(path) for name, path in outputs.items()}
        write_run(list(outputs.values()), "scan", chosen, checksums(), started, calibration=facts, outputs=written)


class View:
    """Where the clinical voxels of a scan lie in a uCT volume, and what of it each is made of.

    scanner, slice_mm: as for `scan_micro`. where: the file, for messages. known: whether the truth is asked for,
    `scale` of whose pixels are one of the scanner's.

    Raises
    ------
    UserError
        The volume has no distance of slices, or is coarser or smaller than what is asked for.
    """

    def __init__(
        self,
        volume: Volume,
        scanner: config.Scanner,
        slice_mm: float,
        where: str,
        known: bool,
        scale: int = config.DEFAULT_SCALE,
    ) -> None:
        self._scale = scale
        if volume.attributes.get("independent_slices") or volume.shape[0] == 1:
            raise UserError(
                f"{where}: its slices have no neighbours, so a clinical slice, which is thicker, cannot be made of "
                "them; give a stack of slices, and their distance as the third number of --spacing XxYxZ, mm"
            )
        check_micro(volume, where)
        self.spacing = (scanner.pixel_mm, scanner.pixel_mm, slice_mm)
        """Of the scan: x, y, z, mm."""
        for axis, setting in ((max(range(2), key=lambda n: volume.spacing[n]), "pixel_mm"), (2, "slice_spacing_mm")):
            if self.spacing[axis] < UPSAMPLING * volume.spacing[axis]:
                raise UserError(
                    f"{where}: its voxels of {volume.spacing[axis]:g} mm are coarser than {setting} "
                    f"{self.spacing[axis]:g}: a scan of it would add no detail; choose {setting} of at least "
                    f"{volume.spacing[axis]:.4g}"
                )
        fine, voxel = scanner.pixel_mm / scale, max(volume.spacing[:2])
        if known and fine < UPSAMPLING * voxel:
            raise UserError(
                f"{where}: its voxels of {voxel:g} mm are coarser than the truth's, {fine:g} mm (pixel_mm / {scale}); "
                f"choose pixel_mm of at least {scale * voxel:.4g}, or leave the truth out"
            )
        lengths = np.multiply(volume.shape[::-1], volume.spacing)
        columns, rows, slices = (int(n) for n in np.floor(lengths / self.spacing + WHOLE))
        self.shape = (slices, rows, columns)
        """Slices, rows and columns of the scan."""
        if min(self.shape) < 1:
            raise UserError(
                f"{where}: is {' x '.join(f'{n:.3g}' for n in lengths)} mm large, less than one clinical voxel of "
                f"{' x '.join(f'{n:g}' for n in self.spacing)} mm; give a larger volume, or choose a smaller pixel_mm "
                "or slice_spacing_mm"
            )
        old, sizes = volume.spacing, volume.shape[::-1]
        places = [np.arange(n) * s for n, s in zip(sizes, old, strict=True)]
        x, y, z = (_centres(*axis) for axis in zip(self.shape[::-1], self.spacing, old, strict=True))
        self.profile = sampling(z, places[2], scanner.slice_sigma_mm)
        """Share of each uCT slice in each clinical slice [slices, uCT slices]."""
        self.thin = interpolation_weights(sizes[2], z / old[2], fine / old[2])
        """The same for the truth, whose slices are as thick as its pixels are wide."""
        self.project = Projection(KERNELS[scanner.kernel], y, x, places[1], places[0])
        """In-plane scan of a uCT slice."""
        self._columns, self._rows = (
            bands(interpolation_weights(n, _centres(scale * count, fine, s) / s, fine / s))
            for n, count, s in zip(sizes[:2], (columns, rows), old[:2], strict=True)
        )
        origin = volume.point((z[0] / old[2], y[0] / old[1], x[0] / old[0]))
        self._place = Volume(None, self.spacing, tuple(map(float, origin)), volume.direction)

    def magnify(self, image: np.ndarray) -> np.ndarray:
        """A uCT slice at the truth's pixels, float32 [scale * rows, scale * columns]."""
        return in_plane(image, self._rows, self._columns)

    def shape_of(self, name: str) -> tuple[int, int, int]:
        """Shape of an output."""
        slices, rows, columns = self.shape
        return (slices, self._scale * rows, self._scale * columns) if name.endswith("truth") else self.shape

    def describe(
        self, name: str, case: str, scanner: config.Scanner, calibration: dict[str, Any], source: Volume
    ) -> Volume:
        """Geometry, unit and attributes of an output."""
        held = self._place
        width = FWHM * scanner.slice_sigma_mm
        x, _, z = self.spacing
        made = (
            f"Simulated scan of a uCT volume, voxels {source.spacing[0]:.4g} mm: kernel {scanner.kernel}, pixels "
            f"{x:.4g} mm, slices of {width:.3g} mm every {z:.4g} mm, noise {scanner.noise_hu:g} HU"
        )
        said = KNOWN.get(name, "simulated clinical CT of a uCT volume, no patient")
        attributes = {
            "case": case,
            "modality": name,
            "description": said.format(scale=self._scale),
            "derivation": made,
            "scanned": scanner.model_dump(mode="json"),
            "calibration": calibration,
            "source": {"slice_thickness": x / self._scale if name == "truth" else width},
        }
        place = replace(held, **magnified_geometry(held, self._scale)) if name.endswith("truth") else held
        return replace(place, unit="HU", attributes=attributes)


def _centres(count: int, new: float, old: float) -> np.ndarray:
    """Centres of `count` pixels of `new` mm from the edge of the first pixel of `old` mm on, seen from its centre."""
    return (np.arange(count) + 0.5) * new - old / 2


def _check_outputs(outputs: Mapping[str, Path], source: str, kind: str | None) -> dict[str, str]:
    """The format of each output."""
    kinds = {name: kind_of(path, kind if name == "clinical" else None) for name, path in outputs.items()}
    places = [absolute(path) for path in outputs.values()]
    for path in outputs.values():
        if absolute(path) == absolute(Path(source)) or places.count(absolute(path)) > 1:
            raise UserError(f"{path}: is the uCT itself, or named for two outputs; give each output a name of its own")
    for name, path in outputs.items():
        check_replaceable(path, kinds[name])
    return kinds


def _open_hu(
    volume: Volume, settings: config.MicroVolume, scan: Scan, mask: str | None, scratch: Path
) -> tuple[Callable[[int], np.ndarray], dict[str, Any]]:
    """What gives a slice of the volume in HU, float32, and the facts of its calibration."""
    where = scan.path
    air = np.float32(settings.calibration.air_hu)
    declared = volume.attributes["source"].get("padding")
    padding = Padding(volume.array, (0, declared or 0))
    if is_volume(Path(where)) and open_volume(Path(where)).unit == "HU":
        mapping, padding = Calibrated(1.0, 0.0, {"method": "none", "reason": "imported, in HU"}), None
    elif settings.calibration.method == "none" and settings.calibration.mean_hu is None:
        _check_hu(volume, where)
        mapping = Calibrated(1.0, 0.0, {"method": "none"})
        # 0 HU is water, not what scanners leave out.
        padding = Padding(volume.array, (declared,)) if declared is not None and declared <= air else None
    else:
        _, mapping = outline_and_calibrate(
            volume, settings, padding, where, scratch, read_given_mask(settings, mask, scan, volume, scratch)
        )

    def load(z: int) -> np.ndarray:
        grey = volume.array[z]
        hu = mapping(grey)
        if padding is not None and (outside := padding[z]).any():
            hu[outside] = air
        return hu

    return load, mapping.facts


def _check_hu(volume: Volume, where: str) -> None:
    """Refuse values that cannot be HU, by some slices."""
    chosen = np.unique(np.linspace(0, len(volume.array) - 1, CALIBRATION_SLICES).astype(int))
    shares = [float(np.mean(np.asarray(volume.array[int(z)]) > NO_HU)) for z in chosen]
    if np.mean(shares) > 0.01:
        raise UserError(
            f"{where}: {np.mean(shares):.0%} of its values are above {NO_HU}, so they are no HU; calibrate it, with "
            "calibration.method two_point or percentile"
        )


def _open_writer(
    files: contextlib.ExitStack, path: Path, kind: str, like: Volume, shape: tuple[int, int, int], made_of: Any
) -> Writer:
    """A writer of an output that has its name only when all outputs are whole."""
    temporary = files.enter_context(replacing(path))
    return files.enter_context(contextlib.closing(open_writer(temporary, kind, shape, like, made_of=made_of)))


def _write(
    writers: Mapping[str, Writer],
    view: View,
    hu: Callable[[int], np.ndarray],
    scanner: config.Scanner,
    slice_mm: float,
    stream: np.random.Generator,
) -> None:
    """Fill all outputs in one pass through the uCT."""
    grains = {
        name: noise_slices(view.shape, scanner, slice_mm, rng)
        for name, rng in zip(("clinical", "repeat"), stream.spawn(2), strict=True)
    }
    weights = {"scan": view.profile, "truth": view.thin, "thick_truth": view.profile}
    sums = {name: Sums(shares) for name, shares in weights.items() if name in ("scan", *writers)}

    def look(z: int) -> tuple[np.ndarray, np.ndarray | None]:
        image = hu(z)
        return view.project(image), view.magnify(image) if len(sums) > 1 else None

    def finish(name: str, z: int, image: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        if name != "scan":
            yield name, as_int16(image)
            return
        yield from ((n, add_noise(image, next(grains[n]), scanner.noise_hu)) for n in grains if n in writers)
        if "noise_free" in writers:
            yield "noise_free", as_int16(image)

    count = view.profile.shape[1]
    progress = Progress(count, "slices of uCT")
    for z, (scanned, fine) in enumerate(in_order(look, range(count))):
        for name, begun in sums.items():
            for position, image in begun.add(z, scanned if name == "scan" else fine):
                for output, values in finish(name, position, image):
                    writers[output].write(position, values)
        progress.advance()
    progress.close()
