"""Segments of airways and vessels on a grid and through a slice, against hand-computed geometry and partial volume."""

import math

import numpy as np
import pytest

from microsr.physics.tissues import Tissue
from microsr.simulation.grid import Canvas, Grid, sheet_share
from microsr.simulation.lung import AIR_HU, AIRWAY_WALL_HU
from microsr.simulation.tubes import Tubes, coverage, crossings, paint_airways, paint_vessels


def tube(radius, start=(0.0, 0.0, -5.0), end=(0.0, 0.0, 5.0), wall=0.0, end_radius=None):
    radii = np.array([radius]), np.array([radius if end_radius is None else end_radius])
    return Tubes(np.array([start]), np.array([end]), *radii, np.array([wall]), np.array([4]))


def canvas(shape, spacing, hu=-850.0):
    grid = Grid.around((0, 0, 0), (spacing,) * 3, shape)
    return Canvas(grid, np.full(shape, hu, np.float32), labelled=True)


def test_a_sheet_thinner_than_the_voxel_is_partial_volume():
    # 0.02 mm in a voxel of 0.1 mm: a fifth when wholly inside, half of that on the voxel's face, nothing beyond
    assert sheet_share(np.array([0.0, 0.04, 0.05, 0.06]), 0.02, 0.1) == pytest.approx([0.2, 0.2, 0.1, 0.0], abs=1e-12)
    assert sheet_share(np.array([0.0]), 0.3, 0.1) == pytest.approx([1.0])


def test_a_vessel_covers_the_area_of_its_circle_and_half_of_a_voxel_on_its_border():
    share = coverage(canvas((1, 101, 101), 0.05).grid, tube(1.0))[0]
    assert share.sum() * 0.05**2 == pytest.approx(math.pi, rel=0.005)
    assert share[50, 50] == 1 and share[50, 70] == pytest.approx(0.5, abs=1e-4)
    assert share[50, 71] == pytest.approx(0) and share[50, 69] == pytest.approx(1)


def test_an_oblique_tube_has_an_elliptic_section():
    share = coverage(canvas((1, 101, 121), 0.05).grid, tube(1.0, (-4.0, 0.0, -4.0), (4.0, 0.0, 4.0)))[0]
    assert share.sum() * 0.05**2 == pytest.approx(math.pi * math.sqrt(2), rel=0.01)


def test_an_airway_is_a_ring_of_the_stated_thickness_around_air():
    spacing, radius, thickness = 0.05, 1.0, 0.25
    lung = canvas((1, 121, 121), spacing)
    paint_airways(lung, tube(radius, wall=thickness), AIRWAY_WALL_HU, AIR_HU)
    row, distance = lung.hu[0, 60], np.abs(lung.grid.x)
    assert np.all(row[distance < radius - spacing] == AIR_HU)
    assert np.all(row[(distance > 1.03) & (distance < 1.22)] == AIRWAY_WALL_HU)
    assert np.all(row[distance > 1.28] == -850)
    # along the ray the wall's tissue above its surroundings, voxel by voxel, adds up to its thickness
    right = lung.grid.x > 0.5
    inner, outer = (row - AIR_HU) / (AIRWAY_WALL_HU - AIR_HU), (row + 850) / (AIRWAY_WALL_HU + 850)
    tissue = np.where(lung.grid.x < 1.1, inner, outer)
    assert tissue[right].sum() * spacing == pytest.approx(thickness, abs=0.002)
    # and the labels say at each centre what is there
    across = np.hypot(lung.grid.y[:, None], lung.grid.x)
    expected = np.select([across < 1, across < 1.25], [Tissue.LUMEN, Tissue.WALL], Tissue.PARENCHYMA)
    clear = (np.abs(across - 1) > 1e-3) & (np.abs(across - 1.25) > 1e-3)
    assert np.array_equal(lung.labels[0][clear], expected[clear])


def test_a_lumen_stays_open_where_two_airways_meet_and_where_a_vessel_runs_through():
    lung = canvas((1, 41, 81), 0.1)
    paint_vessels(lung, tube(0.3, (-4, 0, 0), (4, 0, 0)), 45.0)
    both = Tubes.join([tube(1.0, wall=0.2), tube(0.6, (0, 0, 0), (4, 0, 0), wall=0.2)])
    paint_airways(lung, both, AIRWAY_WALL_HU, AIR_HU)
    assert np.all(lung.hu[0, 20, 40:75] == AIR_HU) and np.all(lung.labels[0, 20, 40:75] == Tissue.LUMEN)
    assert lung.labels[0, 20, 5] == Tissue.VESSEL and lung.hu[0, 20, 5] == 45


def test_a_crossing_has_the_place_the_width_and_the_tilt_of_its_airway_there():
    # from (0, 0, 0) to (3, 0, 4): tilted by asin(3/5); a quarter of the way at z = 1, where the radius is 1 - 0.25 *
    # 0.4
    airway = tube(1.0, (0.0, 0.0, 0.0), (3.0, 0.0, 4.0), wall=0.2, end_radius=0.6)
    found = crossings(airway, 1.0)
    assert [found[k].item() for k in ("x_mm", "y_mm", "diameter_mm", "wall_mm", "generation")] == pytest.approx(
        [0.75, 0.0, 1.8, 0.2, 4]
    )
    assert found["tilt_degrees"].item() == pytest.approx(math.degrees(math.asin(0.6)))
    assert all(len(crossings(airway, z)["x_mm"]) == n for z, n in ((-0.1, 0), (0.0, 1), (4.0, 0)))
