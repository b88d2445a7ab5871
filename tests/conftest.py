"""What every test may ask for."""

import gc
import locale
import logging
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from patience import limit

ROOT = Path(__file__).parent.parent
pytest_plugins = ("workflows", "disks", "provoked", "choosing")
"""Beside this file."""
HANGS = 900
"""Seconds, see `patience`, after which a test fails by itself: far more than any takes."""
LONGEST = (
    "test_slurm",
    "test_blocks",
    "test_real",
    "test_full_disk",
    "test_neighbours",
    "test_run",
    "test_repeated",
    "test_kills",
)
"""Files that take minutes, from the longest on."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files, so that at the end no process is busy while the others have nothing left; end what
    hangs.
    """
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONGEST)))
    for item in items:
        if (
            item.get_closest_marker("timeout") is None
        ):  # of the test alone: a fixture may be a whole run, which has its own
            item.add_marker(pytest.mark.timeout(limit(HANGS), func_only=True))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real volumes, ../shared/data beside the repository; without it, tests on real data are skipped."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        message = f"no real volumes: {folder} does not exist"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
    return folder


@pytest.fixture
def peak_memory() -> Callable[[Callable[[], object]], int]:
    """Gives the largest memory, bytes, that Python and NumPy held at once while a function ran; caches are filled
    before.
    """

    def measure(function: Callable[[], object]) -> int:
        function()
        gc.collect()
        tracemalloc.start()
        try:
            function()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    return measure


@pytest.fixture
def write_dicom() -> Callable[..., list[Path]]:
    """Writes a CT series, one file a slice: stored values [slices, rows, columns] and what the headers say."""

    def write(
        folder: Path,
        stored: np.ndarray,
        positions: list[tuple[float, float, float]],
        pixel: tuple[float, float] = (0.5, 0.7),
        orientation: str = r"1\0\0\0\1\0",
        series: str = "1.2.826.0.1.3680043.2.1",
        rescale: tuple[float, float] = (1, -1024),
        tags: dict[str, str] | None = None,
        name: str = "image",
    ) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        files = []
        for number, (values, position) in enumerate(zip(stored, positions, strict=True)):
            image = sitk.GetImageFromArray((values * rescale[0] + rescale[1]).astype(np.int16))  # GDCM undoes it
            image.SetSpacing(pixel)
            header = {
                "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
                "0008|0018": f"{series}.{number + 1}",
                "0008|0060": "CT",
                "0020|000d": "1.2.826.0.1.3680043.2.9",
                "0020|000e": series,
                "0020|0032": "\\".join(map(str, position)),
                "0020|0037": orientation,
                "0018|0050": "1.25",
                "0028|1053": str(rescale[0]),
                "0028|1052": str(rescale[1]),
                **(tags or {}),
            }
            for tag, value in header.items():
                image.SetMetaData(tag, value)
            path = folder / f"{name}{number}.dcm"
            writer = sitk.ImageFileWriter()
            writer.KeepOriginalImageUIDOn()
            writer.SetFileName(str(path))
            before = locale.setlocale(locale.LC_ALL)
            writer.Execute(image)
            locale.setlocale(locale.LC_ALL, before)  # GDCM leaves another where it writes numbers
            files.append(path)
        return files

    return write


@pytest.fixture
def chest() -> np.ndarray:
    """A made-up chest CT in HU, [6, 64, 64], 1 mm pixels: air at the sides, soft tissue, two lungs with a vessel, a
    trachea.
    """
    rng = np.random.default_rng(1)
    row, column = np.indices((64, 64))
    body = ((row - 32) / 24) ** 2 + ((column - 32) / 29) ** 2 < 1
    hu = np.where(body, 40.0, -1000.0)
    for centre in (16, 48):
        lung = ((row - 32) / 15) ** 2 + ((column - centre) / 8) ** 2 < 1
        hu[lung] = -850
        hu[np.hypot(row - 32, column - centre) < 1.6] = 40
    hu[np.hypot(row - 28, column - 32) < 5] = -1000
    return hu + rng.normal(0, 20, (6, 64, 64))


@pytest.fixture(autouse=True)
def _no_log_is_left():
    """A step started by one test must not write to that test's closed stderr in the next."""
    yield
    logging.getLogger("microsr").handlers.clear()
