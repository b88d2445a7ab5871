"""Pairs: a uCT patch and its scan, which is what the simulated scanner makes of the same tissue, and no more."""

import json

import numpy as np
import pandas as pd
import pytest

from microsr import cli
from microsr.config import Pairs, Scanner, Simulate
from microsr.core.errors import UserError
from microsr.core.files import write_csv
from microsr.core.streams import Stream, numpy_stream
from microsr.preprocessing.pairs import View, draw_scanners, measure_spacing, scan_patches
from microsr.preprocessing.patch_files import (
    INDEX_COLUMNS,
    NEIGHBOUR_COLUMNS,
    SCAN_COLUMNS,
    open_patches,
    read_index,
)
from microsr.simulation import alveoli, simulate
from microsr.simulation.grid import Grid
from microsr.simulation.lung import Lung
from microsr.volume.storage import Volume, write_volume

STATED = Scanner()
ONE = Pairs(scanners=1)
FINE = STATED.pixel_mm / 8


def scanned(folder, volume, corners, settings=ONE, scanner=STATED, case="a", seed=1, size=32, slices=1):
    """The scans of patches at these corners, and their table."""
    folder.mkdir(exist_ok=True)
    rows = [["a", "micro", *corner, size] for corner in corners]
    write_csv(folder / "micro.csv", pd.DataFrame(rows, columns=INDEX_COLUMNS))
    if isinstance(volume, Volume):
        write_volume(folder / "micro.ome.zarr", volume)
    files = (
        [folder / name for name in ("micro.ome.zarr", "micro.csv")],
        [folder / f"micro_scans.{e}" for e in ("npy", "csv")],
    )
    scan_patches(case, *files[0], seed, *files[1], settings, scanner, slices=slices)
    return open_patches(files[1][0]), pd.read_csv(files[1][1])


def speckled(shape=(40, 100, 110), spacing=(FINE,) * 3, **facts) -> Volume:
    values = np.random.default_rng(5).integers(-1000, 100, shape)
    return Volume(values, spacing, **facts)


def test_a_pair_is_the_simulators_scan_of_the_same_place(tmp_path, monkeypatch):
    """Up to the rounding of both to whole HU, in the middle and at the corner of what there is."""
    settings = Simulate(clinical_size=16, clinical_slices=2, specimen_mm=4.0)
    monkeypatch.setattr(alveoli, "STEPS", 56)  # laid out more coarsely, which is most of the time
    lung = Lung(10, 1.2, np.random.default_rng(3))
    still, known = simulate.scan_slab(lung, settings, STATED)
    step = settings.slice_spacing_mm / 8
    beyond = int(np.ceil(3 * STATED.slice_sigma_mm / step))
    grid = Grid.around((0, 0, 0), (FINE, FINE, step), (9 + 2 * beyond, 128, 128))
    tissue = lung.draw(grid).hu
    assert np.array_equal(np.rint(tissue[beyond]), known.truth.array[0]), "the tissue that was scanned"
    corners = [(beyond, 40, 56), (beyond + 8, 0, 96)]
    scans, _ = scanned(tmp_path, Volume(np.rint(tissue), grid.spacing), corners)
    for scan, expected in zip(scans, (still.array[0, 5:9, 7:11], still.array[1, :4, 12:]), strict=True):
        assert np.ptp(expected) > 20
        assert scan == pytest.approx(expected, abs=0.6)
    apart = Pairs(scanners=1, slice_spacing_mm=(settings.slice_spacing_mm,) * 2)
    beside, table = scanned(tmp_path / "beside", Volume(np.rint(tissue), grid.spacing), corners, apart, slices=3)
    assert beside[2] == pytest.approx(still.array[1, 5:9, 7:11], abs=0.6), "the scan's next slice"
    assert beside[3] == pytest.approx(still.array[0, :4, 12:], abs=0.6), "and the one before"
    assert np.array_equal(beside[1::3], scans) and not np.array_equal(beside[0], beside[1])
    assert table[["before", "after"]].to_numpy().tolist() == [[1, 1], [1, 1]]


def test_a_scan_sees_beyond_its_patch_and_nothing_that_is_not_there(tmp_path):
    values = np.full((40, 100, 110), -900)
    dark, _ = scanned(tmp_path / "dark", Volume(values, (FINE,) * 3), [(20, 32, 40), (0, 0, 0), (39, 68, 78)])
    assert (dark == -900).all(), "at the volume's ends too"
    values[:, :32], values[:, :, :40] = 0, 0
    bright, _ = scanned(tmp_path / "bright", Volume(values, (FINE,) * 3), [(20, 32, 40)])
    assert bright[0, 0, 0] > bright[0, 0, 2] > -890 and bright[0, 2, 0] > -890
    assert bright[0, 2:, 2:] == pytest.approx(-900, abs=8), "the kernel's faint ring"


def test_a_scan_sees_as_many_slices_as_its_profile(tmp_path):
    values = np.full((60, 50, 50), -900)
    values[20] = 0
    scans, _ = scanned(tmp_path, Volume(values, (FINE,) * 3), [(20, 8, 8), (24, 8, 8), (50, 8, 8)])
    weights = (scans[:, 1, 1] + 900) / 900
    peak = FINE / (STATED.slice_sigma_mm * np.sqrt(2 * np.pi))
    assert weights == pytest.approx([peak, peak * np.exp(-((4 * FINE / STATED.slice_sigma_mm) ** 2) / 2), 0], abs=0.002)


def test_each_patch_has_the_stated_scanner_first_and_then_drawn_ones(tmp_path):
    settings = Pairs(scanners=4, kernels=["B30", "D45"], slice_sigma=(0.5, 2.0))
    corners = [(20, 10, 20), (3, 60, 70), (20, 40, 0)]
    scans, table = scanned(tmp_path / "many", speckled(), corners, settings)
    assert scans.shape == (12, 4, 4) and scans.dtype == np.int16
    alone, _ = scanned(tmp_path / "alone", speckled(), corners)
    assert np.array_equal(scans[::4], alone)
    assert list(table["slice"]) == [20] * 4 + [3] * 4 + [20] * 4
    assert set(table["kernel"][::4]) == {"lung"} and set(table["slice_sigma_mm"][::4]) == {0.29}
    drawn = table.drop(table.index[::4])
    assert set(drawn["kernel"]) == {"B30", "D45"} and drawn["slice_sigma_mm"].between(0.145, 0.58).all()
    assert drawn["slice_sigma_mm"].nunique() == 9
    for number, row in drawn.iterrows():
        like = STATED.model_copy(update={"kernel": row["kernel"], "slice_sigma_mm": row["slice_sigma_mm"]})
        again, _ = scanned(tmp_path / "again", speckled(), [tuple(row[["slice", "row", "column"]])], scanner=like)
        assert scans[number] == pytest.approx(again[0], abs=1)


def test_scanners_are_drawn_evenly_and_anew_for_each_patch():
    drawn = draw_scanners(500, Pairs(scanners=3), STATED, numpy_stream(Stream.SCANNERS, 1, 2))
    kernels, sigmas = zip(*(pair for number, pair in enumerate(drawn) if number % 3), strict=True)
    assert {kernels.count(name) for name in ("B30", "D45", "lung")} <= set(range(280, 390))
    assert min(sigmas) == pytest.approx(0.7 * 0.29, abs=0.002) and max(sigmas) == pytest.approx(1.4 * 0.29, abs=0.002)
    assert len(set(sigmas)) == 1000


def test_the_scanners_depend_on_seed_and_case_alone(tmp_path):
    settings, corners = Pairs(scanners=3), [(20, 10, 20), (3, 60, 70)]
    first, again, turned, other, elsewhere = (
        scanned(tmp_path / f"{number}", speckled(), c, settings, case=case, seed=seed)[1]["slice_sigma_mm"].tolist()
        for number, (c, case, seed) in enumerate(
            [(corners, "a", 1), (corners, "a", 1), (corners[::-1], "a", 1), (corners, "b", 1), (corners, "a", 2)]
        )
    )
    assert first == again == turned
    assert len({*first, *other, *elsewhere}) == 13


def test_slices_without_neighbours_are_scanned_one_by_one(tmp_path, caplog):
    flat = speckled((3, 60, 60), attributes={"independent_slices": True})
    scans, _ = scanned(tmp_path / "flat", flat, [(1, 10, 12)])
    assert caplog.text.count("without a slice profile") == 1
    alone = View(Volume(flat.array[1:2], flat.spacing), STATED.pixel_mm, 0.29, 8).scan(
        (0, 10, 12), 32, [("lung", 0.29)]
    )
    assert np.array_equal(scans, alone)


def test_what_a_volume_lacks_is_said_once(tmp_path, caplog):
    scanned(tmp_path / "thin", speckled((4, 50, 50)), [(1, 8, 8), (2, 8, 8)])
    assert caplog.text.count("is 0.31 mm thick") == 1
    caplog.clear()
    scanned(tmp_path / "thick", speckled((40, 50, 50)), [(20, 8, 8)])
    assert not caplog.text
    scanned(tmp_path / "fine", speckled((80, 50, 50), (FINE / 2,) * 3), [(20, 8, 8)])
    assert "2 times as large as they are" in caplog.text


def test_a_volume_of_other_pixels_is_seen_as_a_network_sees_it(tmp_path):
    corners = [(20, 10, 20)]
    own, _ = scanned(tmp_path / "own", speckled(), corners)
    small, _ = scanned(tmp_path / "small", speckled(spacing=(FINE / 2,) * 3), corners)
    assert np.array_equal(own, small)


def test_volumes_and_patches_that_do_not_fit_are_refused(tmp_path):
    with pytest.raises(UserError, match="has unit 'grey', scans need HU"):
        scanned(tmp_path / "grey", speckled(unit="grey"), [(1, 8, 8)])
    for corner in ((40, 0, 0), (1, 69, 0), (1, 0, 79)):
        with pytest.raises(UserError, match="lists other patches than uCT patches of"):
            scanned(tmp_path / "beyond", speckled(), [corner])
    with pytest.raises(UserError, match="lists other patches than uCT patches of"):
        scanned(tmp_path / "odd", speckled(), [(1, 0, 0)], size=30)


def test_neighbouring_slices_lie_as_far_apart_as_is_drawn_and_change_nothing_else(tmp_path):
    settings = Pairs(scanners=3, slice_spacing_mm=(0.3, 0.5))
    corners = [(20, 10, 20), (20, 60, 70)]
    scans, table = scanned(tmp_path / "five", speckled(), corners, settings, slices=5)
    single, alone = scanned(tmp_path / "one", speckled(), corners, Pairs(scanners=3))
    assert scans.shape == (30, 4, 4) and np.array_equal(scans[2::5], single)
    assert list(alone.columns) == SCAN_COLUMNS and list(table.columns) == SCAN_COLUMNS + NEIGHBOUR_COLUMNS
    assert table[SCAN_COLUMNS].equals(alone)
    assert table["slice_mm"].between(0.3, 0.5).all() and table["slice_mm"].nunique() == 6
    view = View(speckled(), STATED.pixel_mm, 0.6, 8, 1.0)
    for number, row in table.iterrows():
        scanner = [(row["kernel"], row["slice_sigma_mm"])]
        for k in range(-2, 3):
            place = 20 + k * row["slice_mm"] / FINE
            there = view.scan(tuple(row[["slice", "row", "column"]]), 32, scanner, [place])
            assert scans[5 * number + 2 + k] == pytest.approx(there[0], abs=1)


def test_beyond_the_volume_the_last_slice_is_repeated(tmp_path):
    settings = Pairs(scanners=1, slice_spacing_mm=(10 * FINE,) * 2)
    scans, table = scanned(tmp_path, speckled((41, 60, 60)), [(0, 8, 8), (9, 8, 8), (25, 8, 8)], settings, slices=5)
    assert table[["before", "after"]].to_numpy().tolist() == [[0, 2], [0, 2], [2, 1]]
    first, second, third = scans.reshape(3, 5, 4, 4)
    for stack in (first, second):
        assert np.array_equal(stack[0], stack[2]) and np.array_equal(stack[1], stack[2])
        assert not np.array_equal(stack[2], stack[3]) and not np.array_equal(stack[3], stack[4])
    assert np.array_equal(third[4], third[3]) and not np.array_equal(third[3], third[2])


def test_a_uct_too_thin_for_neighbouring_slices_is_refused(tmp_path):
    settings = Pairs(scanners=1, slice_spacing_mm=(0.6, 0.6))
    flat = speckled((3, 60, 60), attributes={"independent_slices": True})
    with pytest.raises(
        UserError, match=r"micro.ome.zarr has slices without neighbours, and neighbouring .* span 1.2 mm"
    ):
        scanned(tmp_path / "flat", flat, [(1, 10, 12)], settings, slices=3)
    thin = speckled((15, 60, 60))
    with pytest.raises(UserError, match=r"is 1.2 mm thick, and neighbouring clinical slices span 2.4 mm; set methods"):
        scanned(tmp_path / "thin", thin, [(7, 10, 12)], settings, slices=5)
    scans, _ = scanned(
        tmp_path / "less", thin, [(7, 10, 12)], Pairs(scanners=1, slice_spacing_mm=(0.29, 0.29)), slices=5
    )
    assert len(scans) == 5, "the advice: fewer slices, or nearer ones"


def test_the_distance_of_slices_is_that_of_the_clinical_cts(tmp_path):
    for name, apart in (("a", 0.6), ("b", 0.9)):
        write_volume(tmp_path / f"{name}.ome.zarr", Volume(np.zeros((2, 16, 16), np.int16), (0.6, 0.6, apart)))
    flat = Volume(np.zeros((2, 16, 16), np.int16), (0.6, 0.6, 5.0), attributes={"independent_slices": True})
    write_volume(tmp_path / "flat.ome.zarr", flat)
    assert measure_spacing([tmp_path / f"{name}.ome.zarr" for name in ("b", "flat", "a")]) == (0.6, 0.9)
    for known in ([], [tmp_path / "flat.ome.zarr"]):
        with pytest.raises(UserError, match=r"slice_spacing_mm must be given, in mm as \[0.6, 0.8\]: no clinical CT"):
            measure_spacing(known)


def test_a_range_that_falls_is_refused():
    with pytest.raises(ValueError, match="must not fall from the first value to the second"):
        Pairs(slice_sigma=(1.4, 0.7))


def test_the_command_writes_what_other_steps_read(tmp_path):
    scans, table = scanned(tmp_path, speckled(), [(20, 10, 20)], Pairs(scanners=2))
    output, written = tmp_path / "again.npy", tmp_path / "again.csv"
    words = f"pairs --case a --volume {tmp_path}/micro.ome.zarr --index {tmp_path}/micro.csv --seed 1 --scanners 2"
    cli.main([*words.split(), "--output", str(output), "--table", str(written)])
    assert np.array_equal(open_patches(output), scans)
    assert len(read_index(written)) == 2 and pd.read_csv(written).equals(table)
    clinical = Volume(np.zeros((2, 16, 16), np.int16), (0.6, 0.6, 0.45))
    write_volume(tmp_path / "clinical.ome.zarr", clinical)
    several = [*words.split(), "--output", str(output), "--table", str(written), "--slices", "3"]
    cli.main([*several, "--clinical", str(tmp_path / "clinical.ome.zarr")])
    assert np.array_equal(open_patches(output)[1::3], scans) and set(pd.read_csv(written)["slice_mm"]) == {0.45}
    cli.main([*several, "--slice_spacing_mm", "[0.5, 0.5]"])
    assert set(pd.read_csv(written)["slice_mm"]) == {0.5}
    record = json.loads((tmp_path / "again.run.json").read_text())
    assert record["settings"]["slices"] == 3 and record["settings"]["slice_spacing_mm"] == [0.5, 0.5]
    assert record["step"] == "pairs" and record["case"] == "a" and record["settings"]["scanners"] == 2
    assert record["settings"]["kernel"] == "lung" and "noise_hu" not in record["settings"]
