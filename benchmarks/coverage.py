"""How often could draws hold a truth that is chosen for being a wall, a septum or a vessel? Of one experiment.

Coverage by tissue looks at pixels that are chosen by the truth, which by chance is often an extreme there: even draws
that are as the truth hold it less often than in 7 of 9 pixels. Each draw in turn takes the truth's place here, and the
truth a draw's; of its pixels those count that look like the tissue: as bright, and as much brighter than what is
around. If draws were as the truth, the truth's coverage would be this one. Needs the draws of test or validation cases
that are simulated:

    snakemake --cores all --configfile experiments/calibration.yaml
    python benchmarks/coverage.py results/calibration posterior_mean
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.ndimage import white_tophat

from microsr.inference.draws import Draws
from microsr.physics.tissues import Tissue
from microsr.volume.storage import open_mask, open_volume

TISSUES = (Tissue.VESSEL, Tissue.WALL, Tissue.SEPTUM)
"""Those that no value at the window's end hides: there draws and truth are often equal."""
BRIGHT = np.arange(-950, 150, 100)
"""HU that part pixels by their brightness."""
THIN = np.arange(50, 900, 100)
"""HU that part them by how much brighter they are than what is around."""
AROUND = 7
"""Side of the square that a structure must not fill to count as thin, pixels."""


def look(image: np.ndarray) -> np.ndarray:
    """What each pixel of an image looks like, as a number."""
    bright = np.digitize(image, BRIGHT)
    return bright * (len(THIN) + 1) + np.digitize(white_tophat(image, AROUND), THIN)


def measure(results: Path, method: str, training_set: str) -> pd.DataFrame:
    """Coverage of each tissue, and what it would be if the draws were as the truth."""
    kinds = (len(BRIGHT) + 1) * (len(THIN) + 1)
    drawn = {name: np.zeros(kinds) for name in ("seen", "held")}
    known = {tissue: {name: np.zeros(kinds) for name in ("seen", "held")} for tissue in TISSUES}
    for mean in sorted((results / "superresolved" / method / training_set).glob("*.ome.zarr")):
        volume, case = open_volume(mean), mean.name.removesuffix(".ome.zarr")
        if volume.attributes.get("holds") != "mean" or "." in case:
            continue
        names = Draws(count := volume.attributes["draws"], keep=count).paths(mean)
        draws = [open_volume(path).array for held, path in names.items() if held.startswith("draw")]
        known_of = results / "volumes" / case
        truth, labels = (open_volume(known_of / f"{kind}.ome.zarr").array for kind in ("truth", "labels"))
        lung = open_mask(known_of / "clinical.ome.zarr")
        for row, z in enumerate(volume.attributes["slices"]):
            images = np.stack([np.asarray(truth[z]), *(np.asarray(draw[row]) for draw in draws)])
            scale = images.shape[-1] // lung.shape[-1]
            inside = np.kron(np.asarray(lung[z]) > 0, np.ones((scale, scale), bool))
            least, most, tissues = images.min(0), images.max(0), np.asarray(labels[z])
            for number, image in enumerate(images):
                kind, held = look(image), (image > least) & (image < most)
                places = [(drawn, inside)] if number else [(known[t], inside & (tissues == t)) for t in TISSUES]
                for counts, place in places:
                    counts["seen"] += np.bincount(kind[place], minlength=kinds)
                    counts["held"] += np.bincount(kind[place], held[place], minlength=kinds)
    rows = []
    for tissue, counts in known.items():
        if not counts["seen"].any():
            continue
        there = (counts["seen"] > 0) & (drawn["seen"] > 0)
        shares = counts["seen"][there] / counts["seen"][there].sum()
        like = (shares * drawn["held"][there] / drawn["seen"][there]).sum()
        rows.append([tissue.name.lower(), counts["held"].sum() / counts["seen"].sum(), like, int(counts["seen"].sum())])
    return pd.DataFrame(rows, columns=["tissue", "truth", "draws that look like it", "pixels"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, help="folder of the experiment's results")
    parser.add_argument("method", help="name of a method of kind mean")
    parser.add_argument("--training_set", default="pooled")
    ns = parser.parse_args()
    print(measure(ns.results, ns.method, ns.training_set).round(3).to_string(index=False))
