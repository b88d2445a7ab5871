"""Airways, arteries and veins of a simulated lung against the figures of the literature (Murray, Litzlbauer, Pi10)."""

import functools
import math

import numpy as np
import pytest
from scipy.spatial import cKDTree

from microsr.simulation import trees

HALF = np.array([20.0, 20.0, 12.0])


@functools.cache
def bronchial_tree(seed: int = 1) -> trees.Tree:
    """The tree of a block of 40 x 40 x 24 mm, all of it visible."""
    rng = np.random.default_rng(seed)
    count = int(8 * HALF.prod() / trees.ACINUS_MM3 * trees.POINTS_PER_ACINUS)
    return trees.grow(rng.uniform(-1, 1, (count, 3)) * HALF, np.array([12.0, 3.0, -16.0]), (-99, 99), rng)


def daughters():
    """Pairs of a branch and its daughter."""
    starts = {}
    for branch in bronchial_tree().branches:
        starts.setdefault(tuple(branch.points[0]), []).append(branch)
    return [(b, d) for b in bronchial_tree().branches for d in starts.get(tuple(b.points[-1]), [])]


def test_lumens_follow_murray_down_to_the_terminal_bronchiole_and_fall_slowly_in_the_acinus():
    assert trees.lumen_diameter(1) == pytest.approx(0.66)
    assert trees.lumen_diameter(1) / trees.lumen_diameter(2) == pytest.approx(0.7937, abs=1e-4)
    assert trees.lumen_diameter(0.5) / trees.lumen_diameter(1) == pytest.approx(0.94)
    # 11 generations further on: 0.66 mm has become 0.34 mm (Litzlbauer)
    assert trees.lumen_diameter(2.0**-11) == pytest.approx(0.34, abs=0.01)


def test_daughters_are_on_average_079_of_their_parent():
    ratios = [(d.acini / b.acini) ** (1 / 3) for b, d in daughters() if b.acini >= 2]
    assert np.mean(ratios) == pytest.approx(0.79, abs=0.01)
    assert min(ratios) > 0.6 and max(ratios) < 0.9
    assert all(d.generation == b.generation + 1 for b, d in daughters())


def test_every_generation_is_narrower_than_the_one_before():
    by_generation = {}
    for branch in bronchial_tree().branches:
        by_generation.setdefault(branch.generation, []).append(trees.lumen_diameter(branch.acini))
    means = [np.mean(by_generation[g]) for g in sorted(by_generation)]
    assert len(means) > 8 and np.all(np.diff(means) < 0)
    assert means[0] == pytest.approx(0.66 * (8 * HALF.prod() / 130) ** (1 / 3), rel=0.01)


def test_branches_are_two_to_three_times_as_long_as_wide_and_leave_at_sensible_angles():
    conducting = [b for b in bronchial_tree().branches if b.acini >= 1]
    lengths = [np.linalg.norm(np.diff(b.points, axis=0), axis=1).sum() for b in conducting]
    ratio = np.array(lengths) / [trees.lumen_diameter(b.acini) for b in conducting]
    assert 1.9 < np.median(ratio) < 3.2
    chords = [(b.points[-1] - b.points[0], d.points[-1] - d.points[0]) for b, d in daughters() if b.acini >= 2]
    angles = [math.degrees(math.acos(u @ v / np.linalg.norm(u) / np.linalg.norm(v))) for u, v in chords]
    assert 30 < np.median(angles) < 60
    respiratory = [b for b in bronchial_tree().branches if b.acini < 1]
    assert 0.5 < np.median([np.linalg.norm(b.points[-1] - b.points[0]) for b in respiratory]) < 0.95


def test_a_terminal_bronchiole_serves_an_acinus_of_130_cubic_mm():
    terminal = [b for b, d in daughters() if b.acini >= 1 > d.acini]
    count = len({id(b) for b in terminal})
    assert 8 * HALF.prod() / count == pytest.approx(130, rel=0.35)


def test_walls_have_the_pi10_asked_for_and_a_tenth_of_a_millimetre_in_terminal_bronchioles():
    # an inner circumference of 10 mm is a lumen of 3.183 mm
    assert trees.wall_thickness(10 / math.pi, 0.44) == pytest.approx(0.44)
    assert trees.wall_thickness(10 / math.pi, 0.49) == pytest.approx(0.49)
    assert trees.wall_thickness(0.66, 0.465) == pytest.approx(0.0964, abs=1e-4)


def test_arteries_touch_their_airway_and_are_about_as_wide_but_never_in_its_lumen():
    airways, arteries = trees.bundles(bronchial_tree(), 0.66, 0.465, 1.0, np.random.default_rng(2))
    conducting = airways.start_radius > 0.4
    gap = np.linalg.norm(arteries.start - airways.start, axis=1)[conducting]
    needed = (airways.start_radius + airways.wall)[conducting] + arteries.start_radius[conducting]
    assert arteries.start_radius[conducting] == pytest.approx(airways.start_radius[conducting])
    assert 0.8 < np.median(gap / needed) < 1.05  # they share the tissue between them
    assert np.all(gap > airways.start_radius[conducting] * 0.9)
    by_generation = [np.mean(airways.wall[airways.generation == g]) for g in range(0, 8)]
    assert np.all(np.diff(by_generation) < 0)


def test_veins_run_between_the_bundles_of_airway_and_artery():
    airways, _ = trees.bundles(bronchial_tree(), 0.66, 0.465, 1.0, np.random.default_rng(2))
    veins = trees.veins(bronchial_tree(2), 0.66, airways)
    distance, nearest = cKDTree((airways.start + airways.end) / 2).query(veins.start)
    assert (distance > airways.outer_radius[nearest]).mean() > 0.97


def test_what_stays_away_from_the_visible_slab_is_not_grown():
    rng = np.random.default_rng(1)
    points = rng.uniform(-1, 1, (2000, 3)) * HALF
    tree = trees.grow(points, np.array([12.0, 3.0, -16.0]), (8, 99), rng)
    assert tree.branches and max(b.points[:, 2].max() for b in tree.branches) > 8
    # a small branch ends in its territory, which reaches into the slab
    assert min(b.points[:, 2].max() for b in tree.branches if b.acini <= 2) > 3
