"""Training patches: where they may come from, that they are what they say, and that chance is repeatable."""

import json

import numpy as np
import pandas as pd
import pytest

from microsr import cli
from microsr.config import Patches
from microsr.core.errors import UserError
from microsr.preprocessing.patch_files import open_patches
from microsr.preprocessing.patches import extract
from microsr.preprocessing.positions import admissible, count_positions, draw_positions
from microsr.volume.storage import Volume, write_volume

SETTINGS = Patches(clinical_size=4, micro_size=32, per_case=40)


@pytest.fixture
def volume(tmp_path):
    """Every voxel's value says where it is: 1000 slice + 30 row + column. The mask is a box on slices 1 and 3."""
    z, row, column = np.indices((4, 20, 30))
    mask = np.zeros(z.shape, bool)
    mask[1, 2:9, 3:9] = mask[3, 10:16, 20:29] = True
    path = tmp_path / "clinical.ome.zarr"
    write_volume(path, Volume(1000 * z + 30 * row + column, (0.6, 0.6, 1.0)), mask)
    return path


def run(volume, folder, case="a", seed=1, settings=SETTINGS, modality="clinical"):
    folder.mkdir(exist_ok=True)
    extract(case, modality, volume, seed, folder / "p.npy", folder / "p.csv", settings)
    return open_patches(folder / "p.npy"), pd.read_csv(folder / "p.csv")


def test_patches_hold_the_voxels_that_the_index_says(volume, tmp_path):
    patches, index = run(volume, tmp_path / "out")
    assert patches.shape == (40, 4, 4) and patches.dtype == np.int16
    assert list(index.columns) == ["case", "modality", "slice", "row", "column", "size"]
    assert set(index["case"]) == {"a"} and set(index["modality"]) == {"clinical"} and set(index["size"]) == {4}
    first = 1000 * index["slice"] + 30 * index["row"] + index["column"]
    assert np.array_equal(patches[:, 0, 0], first)
    assert np.array_equal(patches[:, 3, 2], first + 3 * 30 + 2)


def test_patches_lie_wholly_inside_the_mask(volume, tmp_path):
    _, index = run(volume, tmp_path / "out")
    one, three = index[index["slice"] == 1], index[index["slice"] == 3]
    assert len(one) + len(three) == 40 and len(one) and len(three)
    assert one["row"].between(2, 5).all() and one["column"].between(3, 5).all()
    assert three["row"].between(10, 12).all() and three["column"].between(20, 25).all()


@pytest.mark.parametrize(("inside", "first"), [(1.0, 4), (0.75, 3), (0.5, 2), (0.0, 0)])
def test_share_inside_the_mask_decides_how_far_a_patch_may_reach_out(inside, first):
    mask = np.zeros((4, 20), np.uint8)
    mask[:, 4:] = 1
    allowed = admissible(mask, 4, inside)
    assert allowed.shape == (1, 17)
    assert np.array_equal(np.flatnonzero(allowed[0]), np.arange(first, 17))


def test_box_sums_equal_counting_pixel_by_pixel():
    mask = np.random.default_rng(3).integers(0, 2, (13, 17)).astype(np.uint8)
    counted = np.array([[mask[r : r + 5, c : c + 5].sum() for c in range(13)] for r in range(9)])
    assert np.array_equal(admissible(mask, 5, 0.5), counted >= 12.5)


def test_a_share_of_0_55_of_100_pixels_is_55_pixels():
    """In floating point 0.55 x 100 is a little more than 55."""
    mask = np.zeros((10, 10), np.uint8)
    mask.ravel()[:55] = 1
    assert admissible(mask, 10, 0.55).all() and not admissible(mask, 10, 0.56).any()


def test_positions_are_drawn_uniformly_over_all_slices():
    mask = np.zeros((3, 6, 8), np.uint8)
    mask[0, :4, :4] = 1  # one position of 4x4
    mask[2, :4, :6] = 1  # three positions
    counts = count_positions(mask, 4, 1.0)
    assert counts.tolist() == [1, 0, 3]
    drawn = draw_positions(mask, 4, 1.0, 4000, np.random.default_rng(0), counts)
    places, times = np.unique(drawn, axis=0, return_counts=True)
    assert places.tolist() == [[0, 0, 0], [2, 0, 0], [2, 0, 1], [2, 0, 2]]
    assert np.all(np.abs(times - 1000) < 5 * np.sqrt(4000 * 0.25 * 0.75))


def test_chosen_slices_alone_are_drawn_from():
    mask = np.ones((5, 6, 6), np.uint8)
    counts = count_positions(mask, 4, 1.0, [1, 4])
    drawn = draw_positions(mask, 4, 1.0, 50, np.random.default_rng(0), counts, [1, 4])
    assert set(drawn[:, 0]) == {1, 4}


def test_same_seed_case_and_modality_give_the_same_patches_and_another_gives_others(volume, tmp_path):
    first, _ = run(volume, tmp_path / "1")
    again, _ = run(volume, tmp_path / "2")
    other_case, _ = run(volume, tmp_path / "3", case="b")
    other_seed, _ = run(volume, tmp_path / "4", seed=2)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other_case)
    assert not np.array_equal(first, other_seed)


def test_more_patches_begin_with_the_same_ones(volume, tmp_path):
    few, _ = run(volume, tmp_path / "1", settings=SETTINGS.model_copy(update={"per_case": 10}))
    many, _ = run(volume, tmp_path / "2")
    assert np.array_equal(few, many[:10])


def test_micro_patches_have_the_micro_size(tmp_path):
    write_volume(tmp_path / "m.ome.zarr", Volume(np.zeros((2, 40, 50)), (0.05,) * 3), np.ones((2, 40, 50)))
    patches, index = run(tmp_path / "m.ome.zarr", tmp_path / "out", modality="micro")
    assert patches.shape == (40, 32, 32)
    assert index["row"].max() <= 8 and index["column"].max() <= 18


def test_run_json_says_how_the_patches_were_made(volume, tmp_path):
    run(volume, tmp_path / "out", seed=7)
    record = json.loads((tmp_path / "out" / "p.run.json").read_text(encoding="utf-8"))
    assert record["step"] == "patches" and record["settings"]["seed"] == 7 and record["settings"]["per_case"] == 40
    assert record["admissible_positions"] == 4 * 3 + 3 * 6
    assert record["spacing_mm"] == [0.6, 0.6]


def test_volume_smaller_than_a_patch_is_refused_by_name(volume, tmp_path):
    with pytest.raises(UserError, match=r"case a, clinical: .*clinical.ome.zarr has slices of 20x30 .* lower patches"):
        run(volume, tmp_path, settings=Patches(clinical_size=24, micro_size=192))


def test_no_room_in_the_mask_is_refused_with_its_extent(volume, tmp_path):
    with pytest.raises(UserError, match=r"no 8x8 patch .* slices 1 to 3, rows 2 to 15, columns 3 to 28"):
        run(volume, tmp_path, settings=Patches(clinical_size=8, micro_size=64))


def test_empty_mask_is_refused(tmp_path):
    write_volume(tmp_path / "v.ome.zarr", Volume(np.zeros((2, 20, 20)), (1, 1, 1)), np.zeros((2, 20, 20)))
    with pytest.raises(UserError, match=r"v\.ome\.zarr: the mask is empty"):
        run(tmp_path / "v.ome.zarr", tmp_path)


def test_uncalibrated_grey_values_are_refused(tmp_path):
    grey = Volume(np.zeros((1, 40, 40)), (1, 1, 1), unit="grey")
    write_volume(tmp_path / "v.ome.zarr", grey, np.ones((1, 40, 40)))
    with pytest.raises(UserError, match="unit 'grey', patches need HU"):
        run(tmp_path / "v.ome.zarr", tmp_path, modality="micro")


def test_command_line_writes_patches_and_index(volume, tmp_path):
    out = tmp_path / "deep" / "clinical.npy"
    flags = f"--case a --modality clinical --volume {volume} --seed 1 --output {out} --index {out.with_suffix('.csv')}"
    cli.main(["patches", *flags.split(), "--clinical_size=4", "--micro_size=32", "--per_case=5", "--inside=0.5"])
    assert open_patches(out).shape == (5, 4, 4) and len(pd.read_csv(out.with_suffix(".csv"))) == 5


def test_a_file_that_holds_no_patches_is_refused(tmp_path):
    np.save(tmp_path / "flat.npy", np.zeros((3, 4)))
    (tmp_path / "text.npy").write_text("no array")
    (tmp_path / "empty.npy").touch()
    np.savez(tmp_path / "archive.npz", np.zeros((2, 4, 4)))
    for name in ("flat.npy", "text.npy", "empty.npy", "archive.npz", "absent.npy"):
        with pytest.raises(UserError, match=name):
            open_patches(tmp_path / name)


def test_more_patches_than_there_are_places_are_told(volume, tmp_path, caplog):
    run(volume, tmp_path / "out", settings=Patches(clinical_size=4, micro_size=32, per_case=400))
    assert "case a, clinical: 400 patches from only 30 different positions; lower patches.per_case" in caplog.text
