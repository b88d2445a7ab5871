"""The results of a small made-up experiment, of which the report is made in a second."""

import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from microsr import cli
from microsr.core.provenance import write_run
from microsr.evaluation.summary import summarise
from microsr.evaluation.tables import COLUMNS
from microsr.volume.storage import Volume, magnified_geometry, write_volume

ROOT = Path(__file__).parent.parent.parent
METHODS = {"proposed": -700, "bicubic": -500, "cyclegan": -300}
"""Each method's volume has one value in the lung, so that what is shown can be told from its pixels."""
TRUTH, CLINICAL, BODY = -100, -900, 30
SD = 75


@dataclass
class Results:
    """The results of a small experiment in a folder, and what the report's command line is made of."""

    folder: Path
    methods: dict[str, int] = field(default_factory=lambda: dict(METHODS))
    truth: bool = True
    cases: tuple[str, ...] = ("test1",)
    training_sets: tuple[str, ...] = ("pooled",)
    protocols: tuple[str, ...] = ("no_reference", "truth")
    figures: tuple[str, ...] = (
        "comparison",
        "patches_train1_micro",
        "losses",
        "metrics",
        "bronchioles",
        "hallucination",
    )
    note: str | None = None
    draws: tuple[int, ...] = ()
    """HU of the draws of a sampler, of which there is an SD too, SD."""

    def arguments(self) -> list[str]:
        """Write what is not there yet, and give the arguments of `microsr report page` but for the output."""
        self.folder.mkdir(parents=True, exist_ok=True)
        words = ["page", "--experiment", "small", "--window", "-1000", "200", "--captions", str(ROOT / "report")]
        for number, case in enumerate(self.cases):
            words += ["--view", *self._view(case, self.training_sets[number % len(self.training_sets)], number)]
        words += ["--volumes", str(self._volumes()), "--summary", str(self._summary())]
        words += ["--figures", *(str(self._figure(name)) for name in self.figures)]
        words += ["--settings", "train.epochs=3", 'methods.proposed.losses.pixel_norm="l1"']
        return words + (["--note", self.note] if self.note else [])

    def report(self, name: str = "report.html") -> Path:
        """Make the report and give its path."""
        output = self.folder / name
        cli.main(["report", *self.arguments(), "--output", str(output)])
        return output

    def _view(self, case: str, training_set: str, number: int) -> list[str]:
        rows, columns = np.mgrid[:24, :32]
        lung = np.broadcast_to(np.hypot((rows - 12) / 9, (columns - 16) / 13) < 1, (3, 24, 32))
        folder = self.folder / "superresolved"
        clinical = Volume(np.where(lung, CLINICAL, BODY), (0.5, 0.5, 1.0), attributes={"case": case})
        paths = [self.folder / f"volumes/{case}/clinical.ome.zarr"]
        write_volume(paths[0], clinical, lung)
        magnified = lung.repeat(8, 1).repeat(8, 2)
        place = magnified_geometry(clinical, 8)
        read = {}
        for name, hu in self.methods.items():
            paths.append(folder / name / ("none" if name == "bicubic" else training_set) / f"{case}.ome.zarr")
            hu = np.where(magnified, hu - 10 * number, BODY)[[1]]
            write_volume(paths[-1], Volume(hu, **place, attributes={"slices": [1]}))
            read[paths[-1]] = [0]
        words = [
            f"clinical={paths[0]}",
            *(f"method/{name}={path}" for name, path in zip(self.methods, paths[1:], strict=True)),
        ]
        if self.truth:
            paths.append(self.folder / f"volumes/{case}/truth.ome.zarr")
            write_volume(paths[-1], Volume(np.where(magnified, TRUTH, BODY), **place))
            read[paths[-1]] = [1]
            words.append(f"truth={paths[-1]}")
        further = {f"draw/Draw {n}": hu for n, hu in enumerate(self.draws, start=1)} | (
            {"sd/SD": SD} if self.draws else {}
        )
        for word, hu in further.items():
            path = folder / "sampler" / training_set / f"{case}_{word.replace('/', '_')}.ome.zarr"
            write_volume(path, Volume(np.where(magnified, hu, 0)[[1]], **place, attributes={"slices": [1]}))
            words.append(f"{word}={path}")
        record = self.folder / f"figures/comparison_{case}.run.json"
        shown = {"slice": 1, "insets": [{"row": 8, "column": 12, "size": 6}], "slices_read": read}
        write_run(record, "figures.comparison", {"title": f"{case} (<made> & up)"}, paths, time.time(), **shown)
        return [str(record), *words]

    def _volumes(self) -> Path:
        path = self.folder / "tables/volumes.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(
            "case,modality,format,columns_px,rows_px,slices,pixel_x_mm,pixel_y_mm,slice_spacing_mm,slice_thickness_mm,"
            "spacing_from\n"
            "train1,micro,NIfTI,229,229,26,0.07,0.07,0.07,,file\ntest1,clinical,NIfTI,32,24,3,0.5,0.5,1,,file\n"
        )
        write_run(path, "volumes", {}, [], time.time())
        return path

    def _summary(self) -> Path:
        path, rows = self.folder / "tables/summary.csv", []
        known = {"no_reference": [("consistency_rmse", "HU"), ("spectrum_distance", "log10 power")],
                 "truth": [("psnr", "dB"), ("ssim", "1"), ("smallest_bronchiole", "mm")]}  # fmt: skip
        for training_set in self.training_sets:
            for place, method in enumerate(self.methods):
                for protocol in self.protocols:
                    for metric, unit in known[protocol]:
                        value = np.nan if metric == "smallest_bronchiole" else 10.0 + place
                        trained = "none" if method == "bicubic" else training_set
                        for seed in ("none",) if method == "bicubic" else ("1", "2", "3"):
                            row = ("test1", method, trained, seed, protocol, metric, value, unit)
                            rows += [] if row[:6] in {r[:6] for r in rows} else [row]
        path.parent.mkdir(parents=True, exist_ok=True)
        summarise(pd.DataFrame(rows, columns=COLUMNS)).to_csv(path, index=False)
        write_run(path, "evaluate.summarise", {}, [], time.time())
        return path

    def _figure(self, name: str) -> Path:
        path = self.folder / f"figures/{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((60, 90, 3), 200, np.uint8)).save(path)
        return path
