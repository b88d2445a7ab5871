"""The alveoli against Ochs et al. 2004: number, volume, and tissue that does not depend on the voxel."""

import functools

import numpy as np
import pytest

from microsr.simulation.alveoli import ALVEOLI_PER_MM3, ALVEOLUS_MM3, Foam
from microsr.simulation.grid import Grid


@functools.cache
def alveoli() -> Foam:
    return Foam(np.random.default_rng(5))


def test_170_alveoli_of_the_stated_mean_volume_in_a_cubic_millimetre_and_ducts_between():
    foam = alveoli()
    assert (~foam.duct).sum() / foam.tile**3 == pytest.approx(ALVEOLI_PER_MM3, rel=0.01)
    assert foam.tile**3 / len(foam.seeds) == pytest.approx(ALVEOLUS_MM3)
    assert foam.duct.mean() == pytest.approx(0.286, abs=0.001)


def test_voxels_of_every_size_hold_the_same_tissue():
    fields = {s: alveoli()(Grid.around((0, 0, 0), (s,) * 3, (round(5 / s),) * 3)) for s in (0.034, 0.05, 0.078125)}
    means = [tissue.mean() for tissue in fields.values()]
    assert means == pytest.approx([1, 1, 1], abs=0.03) and np.ptp(means) < 0.01
    assert fields[0.05].std() > 1.2 * fields[0.078125].std() > 0.5  # the finer voxel sees more of a wall


def test_walls_are_partial_volume_and_ducts_are_open():
    # at 14 % tissue a voxel of 0.05 mm that a wall of some 10 um crosses is filled to about a fifth, and rarely to a
    # half
    tissue = 0.14 * alveoli()(Grid.around((0, 0, 0), (0.05,) * 3, (40, 100, 100)))
    assert (tissue > 0.5).mean() < 0.03
    assert 0.15 < (tissue < 0.01).mean() < 0.45


def test_the_tile_does_not_show_as_a_repetition():
    foam = alveoli()
    here = Grid.around((0, 0, 0), (0.06,) * 3, (8, 250, 250))
    for axis in foam._turn:
        step = foam.tile * axis
        there = Grid(here.x + step[0], here.y + step[1], here.z + step[2], here.spacing)
        assert abs(np.corrcoef(foam(here).ravel(), foam(there).ravel())[0, 1]) < 0.2
