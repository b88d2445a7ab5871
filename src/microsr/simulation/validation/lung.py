"""The simulated lung, measured as a morphometrist measures a real one: HU by tissue, alveoli, airways by generation.

HU, noise and airway walls come from the files of simulated cases; alveoli from a foam and branching from a tree that
are drawn for the purpose, larger than those of a case.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import SimpleITK as sitk
from scipy.ndimage import binary_erosion
from scipy.spatial import Voronoi, cKDTree

from microsr.core.errors import UserError
from microsr.core.progress import logger
from microsr.physics.airways import read_airways
from microsr.physics.tissues import Tissue
from microsr.simulation.alveoli import MOUTH_SHARE, Foam
from microsr.simulation.lung import AIR_HU, BLOOD_HU
from microsr.simulation.trees import ACINUS_MM3, PI10_LUMEN_MM, POINTS_PER_ACINUS, Tree, grow, lumen_diameter
from microsr.simulation.validation.checks import NONE, Check

KNOWN = "common knowledge"
MIX = "derived: 14 % tissue in gas is -860 HU"
OCHS = "Ochs 2004"
STONE = "Stone 1992 (0.207 mm^2 an alveolus) with Ochs 2004 (170 per mm^3)"
LITZLBAUER = "Litzlbauer"
MURRAY = "Murray's law"
PI10 = "Pi10 0.44-0.49 mm: wall at a lumen of 10 mm circumference"
HU_RANGES = {
    Tissue.PARENCHYMA: ((-880, -820), KNOWN),
    Tissue.GLASS: ((-700, -450), KNOWN),
    Tissue.VESSEL: ((20, 60), KNOWN + ", unenhanced"),
    Tissue.TUMOUR: ((20, 60), KNOWN + ", unenhanced"),
    Tissue.LUMEN: ((-1020, -980), "air: -1000"),
}
"""Where each tissue's HU should be, and who says so."""
TREE_SIDE_MM = 50.0
"""Side of the cube of lung that the measured tree supplies."""


@dataclass(frozen=True)
class SimulatedCase:
    """What a simulated test case holds: [slices, rows, columns] HU, tissue codes, and the airways that cross its
    slices.
    """

    clinical: np.ndarray
    truth: np.ndarray
    labels: np.ndarray
    repeat: np.ndarray
    airways: pd.DataFrame
    slice_mm: float

    @classmethod
    def read(cls, folder: Path) -> SimulatedCase:
        """Read the folder of a test case that `microsr simulate` made.

        Raises
        ------
        UserError
            A file is missing or cannot be read.
        """
        voxels = {}
        for name in ("clinical", "truth", "labels", "repeat"):
            path = folder / f"{name}.nii.gz"
            try:
                image = sitk.ReadImage(str(path))
            except RuntimeError:
                raise UserError(
                    f"{path} is missing or cannot be read; make the case with `microsr simulate --split test`"
                ) from None
            voxels[name] = sitk.GetArrayFromImage(image)
        return cls(**voxels, airways=read_airways(folder / "airways.csv"), slice_mm=float(image.GetSpacing()[2]))

    @property
    def scale(self) -> int:
        """Pixels of the truth along a clinical one."""
        return self.truth.shape[1] // self.clinical.shape[1]

    def pure(self, tissue: Tissue, margin: int) -> np.ndarray:
        """Clinical pixels that hold nothing but `tissue`, nor do those up to `margin` pixels away in-plane."""
        slices, rows, columns = self.clinical.shape
        scale = self.scale
        blocks = (self.labels == tissue).reshape(slices, rows, scale, columns, scale).all(axis=(2, 4))
        return binary_erosion(blocks, np.ones((1, 3, 3)), iterations=margin) if margin else blocks


def check_tissues(cases: list[SimulatedCase]) -> list[Check]:
    """HU of each tissue, the tissue in the parenchyma, and the noise, over all cases.

    Parenchyma and ground glass are seen as the clinical CT shows them, blurred: mean over pixels without anything else
    nearby. Tumour, vessels and air are the truth's median two pixels away from any border.
    """
    checks = []
    for tissue, (expected, source) in HU_RANGES.items():
        if tissue in (Tissue.PARENCHYMA, Tissue.GLASS):
            seen = [case.clinical[case.pure(tissue, margin=1)] for case in cases]
            value = np.mean
        else:
            inner = np.ones((1, 5, 5))
            seen = [case.truth[binary_erosion(case.labels == tissue, inner)] for case in cases]
            value = np.median
        found = np.concatenate(seen)
        if found.size:
            checks.append(Check("hu", tissue.name.lower(), float(value(found)), expected, "HU", source))
        else:
            logger.warning("no %s in the cases is large enough to measure its HU", tissue.name.lower())
    blocks = [c.pure(Tissue.PARENCHYMA, 0).repeat(c.scale, 1).repeat(c.scale, 2) for c in cases]
    truth = np.concatenate([case.truth[block] for case, block in zip(cases, blocks, strict=True)])
    share = 100 * (truth.mean(dtype=float) - AIR_HU) / (BLOOD_HU - AIR_HU)
    checks.append(Check("tissue_fraction", "parenchyma", share, (12, 16), "%", MIX))
    lung = [c.labels[:, c.scale // 2 :: c.scale, c.scale // 2 :: c.scale] != Tissue.OUTSIDE for c in cases]
    apart = [(c.clinical.astype(float) - c.repeat)[inside] for c, inside in zip(cases, lung, strict=True)]
    spread = float(np.concatenate(apart).std() / np.sqrt(2))
    source = "Pontana 2015, air at 120 kVp: soft 18, lung kernel 38 HU"
    checks.append(Check("noise_sd", "lung, two scans", spread, (18, 38), "HU", source))
    return checks


def check_foam(rng: np.random.Generator) -> list[Check]:
    """Number, volume, faces and surface of the alveoli, from the geometry of a foam of average alveoli."""
    foam = Foam(rng)
    number = int((~foam.duct).sum())
    points = rng.uniform(0, foam.tile, (200_000, 3))
    alveolar = float((~foam.duct)[cKDTree(foam.seeds, boxsize=foam.tile).query(points)[1]].mean())
    area, faces = _walls(foam)
    volume = foam.tile**3
    thickness = 1000 * 0.14 * volume / area
    return [
        Check("alveoli", "foam", number / volume, (153, 187), "per mm^3", f"{OCHS}: 170, +-10 %"),
        Check("alveolar_volume", "foam", 1e9 * alveolar * volume / number, (3.3e6, 4.8e6), "um^3", f"{OCHS}: 4.2e6"),
        Check("alveolar_facets", "foam", faces, (12, 15), "1", "12-15 facets"),
        Check("surface_density", "foam", 2 * area / volume, (28, 42), "mm^2/mm^3", f"{STONE}: 35, +-20 %"),
        Check("wall_thickness", "foam", thickness, (6, 10), "um", "derived: about 8 um for 14 % tissue, +-25 %"),
    ]


def _walls(foam: Foam) -> tuple[float, float]:
    """Area of the walls that are not open, one side, mm^2, and the faces of an alveolus, from the seeds' Voronoi
    cells.
    """
    reach = 3 * foam.tile / len(foam.seeds) ** (1 / 3)
    shifts = np.stack(np.meshgrid(*[(-1, 0, 1)] * 3), axis=-1).reshape(-1, 3) * foam.tile
    around = (foam.seeds + shifts[:, None]).reshape(-1, 3)
    near = np.nonzero(((around > -reach) & (around < foam.tile + reach)).all(axis=1))[0]
    cells = Voronoi(around[near])
    own = (near // len(foam.seeds)) == np.nonzero(~shifts.any(axis=1))[0][0]
    duct = foam.duct[near % len(foam.seeds)]
    pairs = cells.ridge_points
    alveoli = own[pairs] & ~duct[pairs]
    mixed, closed = duct[pairs].any(axis=1), ~duct[pairs].all(axis=1)
    # A wall shared with a copy beyond the tile's border is half this tile's own.
    share = closed * np.where(mixed, 1 - MOUTH_SHARE, 1.0) * own[pairs].mean(axis=1)
    corners = np.array([len(ridge) if -1 not in ridge else 0 for ridge in cells.ridge_vertices])
    total = 0.0
    for count in np.unique(corners[corners > 0]):
        chosen = np.nonzero(corners == count)[0]
        polygon = cells.vertices[[cells.ridge_vertices[n] for n in chosen]]
        spokes = polygon[:, 1:] - polygon[:, :1]
        area = 0.5 * np.linalg.norm(np.cross(spokes[:, :-1], spokes[:, 1:]).sum(axis=1), axis=1)
        total += float(area @ share[chosen])
    return total, alveoli.sum() / int((own & ~duct).sum())


def check_tree(rng: np.random.Generator) -> list[Check]:
    """Diameter, length, ratios and angles of the airways by generation, and the terminal bronchioles."""
    half = TREE_SIDE_MM / 2
    count = int(TREE_SIDE_MM**3 / ACINUS_MM3 * POINTS_PER_ACINUS)
    points = rng.uniform(-half, half, (count, 3))
    table = branch_table(grow(points, np.array([0.0, 0.0, -1.1 * half]), (-np.inf, np.inf), rng))
    conducting, acinar = table[table["acini"] >= 1], table[table["acini"] < 1]
    checks, trunk = [], table["diameter"].iloc[0]
    # In later generations the smaller half of the branches has ended, and those that are left are no sample of a
    # generation.
    last = int(acinar["generation"].min()) - 1
    for generation, group in conducting[conducting["generation"] <= last].groupby("generation"):
        name = f"generation {generation}"
        law = trunk * 2 ** (-generation / 3)
        around = (0.85 * law, 1.15 * law)
        checks.append(
            Check("airway_diameter", name, group["diameter"].mean(), around, "mm", f"{MURRAY}, +-15 %", x=generation)
        )
        if generation:
            ratio = group["ratio"].mean()
            checks.append(
                Check("diameter_ratio", name, ratio, (0.74, 0.84), "1", f"{MURRAY}: 0.79, +-0.05", x=generation)
            )
            length = (group["length"] / group["diameter"]).mean()
            checks.append(Check("length_to_diameter", name, length, (2.0, 4.0), "1", f"{KNOWN}: about 3", x=generation))
    terminal = conducting.loc[~conducting["number"].isin(conducting["parent"]), "diameter"].mean()
    return [
        *checks,
        Check("diameter_ratio", "conducting", conducting["ratio"].mean(), (0.77, 0.81), "1", f"{MURRAY}: 0.79"),
        Check("diameter_ratio", "acinus", acinar["ratio"].mean(), (0.93, 0.96), "1", f"{LITZLBAUER}: 0.66 to 0.34 mm"),
        Check(
            "length_to_diameter",
            "conducting",
            (conducting["length"] / conducting["diameter"]).mean(),
            (2.5, 3.5),
            "1",
            f"{KNOWN}: about 3",
        ),
        Check("branch_length", "acinus", acinar["length"].mean(), (0.5, 0.9), "mm", LITZLBAUER),
        Check("daughter_angle", "conducting", conducting["angle"].mean(), NONE, "degrees", "no figure at hand"),
        Check("daughter_angle", "acinus", acinar["angle"].mean(), (113, 134), "degrees", LITZLBAUER),
        Check("terminal_lumen", "terminal bronchiole", terminal, (0.60, 0.72), "mm", f"{LITZLBAUER}: 0.66"),
    ]


def branch_table(tree: Tree) -> pd.DataFrame:
    """Each branch of a tree, trunk first: number, parent (-1: none), generation, acini, diameter and length (mm), ratio
    of its diameter to its parent's, and angle (degrees) between the two daughters that it divides into (chords; NaN:
    none)."""
    branches = tree.branches
    ends = {tuple(np.round(branch.points[-1], 6)): number for number, branch in enumerate(branches)}
    parents = [ends.get(tuple(np.round(branch.points[0], 6)), -1) for branch in branches]
    table = pd.DataFrame(
        {
            "number": range(len(branches)),
            "parent": parents,
            "generation": [branch.generation for branch in branches],
            "acini": [branch.acini for branch in branches],
            "diameter": [lumen_diameter(branch.acini) for branch in branches],
            "length": [np.linalg.norm(np.diff(branch.points, axis=0), axis=1).sum() for branch in branches],
        }
    )
    daughters: dict[int, list[np.ndarray]] = {}
    for branch, parent in zip(branches, parents, strict=True):
        chord = branch.points[-1] - branch.points[0]
        daughters.setdefault(parent, []).append(chord / np.linalg.norm(chord))
    angles = {p: np.degrees(np.arccos(np.clip(v[0] @ v[1], -1, 1))) for p, v in daughters.items() if len(v) == 2}
    diameter = table["diameter"].to_numpy()
    ratio = np.where(table["parent"] >= 0, diameter / diameter[table["parent"]], np.nan)
    return table.assign(ratio=ratio, angle=table["number"].map(angles).astype(float))


def check_walls(airways: pd.DataFrame) -> list[Check]:
    """Thickness of the airway walls that the cases' slices cut, as Pi10, and the lumens that they cut."""
    conducting = airways[airways["diameter_mm"] > 0.7]
    checks = []
    if len(conducting):
        # Walls grow with the lumen; through the origin, since Pi10 lies beyond the airways of a small field.
        slope = (conducting["wall_mm"] * conducting["diameter_mm"]).sum() / (conducting["diameter_mm"] ** 2).sum()
        checks.append(Check("pi10_wall", "cases", slope * PI10_LUMEN_MM, (0.44, 0.49), "mm", PI10))
    for name, value in (("smallest", airways["diameter_mm"].min()), ("largest", airways["diameter_mm"].max())):
        checks.append(Check("lumen_in_slices", name, value, NONE, "mm", "what the bronchiole curve can tell"))
    return checks
