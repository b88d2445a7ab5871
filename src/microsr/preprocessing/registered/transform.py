"""The transform of the sheet's column `micro_to_clinical`: from points of a uCT to points of the clinical CT."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from microsr.core.errors import UserError
from microsr.formats import headers

PROBES = ((100.0, -70.0, 40.0), (-300.0, 250.0, -900.0))
"""Points, mm, at which a transform must do what it does near the origin: a deformation does not."""
LARGEST_SCALE = 2.0
"""A specimen shrinks or swells by less than this; what scales more has mixed up units."""


class Affine(NamedTuple):
    """p' = matrix p + shift, with p in mm (x, y, z; LPS)."""

    matrix: np.ndarray
    shift: np.ndarray

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """Points [..., 3] where they come to lie."""
        return points @ self.matrix.T + self.shift

    @property
    def inverse(self) -> Affine:
        """The transform back."""
        matrix = np.linalg.inv(self.matrix)
        return Affine(matrix, -matrix @ self.shift)

    @property
    def scale(self) -> float:
        """By how much lengths grow, in the mean of the three directions; below 0 if it mirrors."""
        return float(np.cbrt(np.linalg.det(self.matrix)))


def read_transform(path: Path) -> Affine:
    """Read an ITK transform (.tfm, .txt, .h5, .mat) that is linear: rigid, similarity, affine, or several of them.

    It maps physical points of the uCT to physical points of the clinical CT, as `TransformPoint` does.

    Raises
    ------
    UserError
        The file is no transform of this kind, or one that mirrors or scales as no specimen does.
    """
    import SimpleITK as sitk  # only here: most imports have no transform

    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        transform = sitk.ReadTransform(str(path))
        origin, *ends = (np.array(transform.TransformPoint(p)) for p in ((0.0, 0.0, 0.0), *np.eye(3).tolist()))
        there = np.array([transform.TransformPoint(p) for p in PROBES])
    except (RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: is no ITK transform of points in 3-D ({headers.reason(error)}); save it with "
            "SimpleITK.WriteTransform (.tfm, .txt, .h5, .mat)"
        ) from None
    found = Affine(np.stack(ends, axis=1) - origin[:, None], origin)
    if not np.allclose(found(np.array(PROBES)), there, atol=1e-3):
        raise UserError(f"{path}: bends the specimen; give a rigid, similarity or affine transform")
    if not 1 / LARGEST_SCALE < found.scale < LARGEST_SCALE:
        raise UserError(
            f"{path}: scales the specimen by {found.scale:.3g} (below 0: mirrors it); register it anew, with both in mm"
        )
    return found
