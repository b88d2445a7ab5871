"""Masks of what is no lung: by values, by a file of many formats, or the whole volume; and what is refused of them."""

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from microsr import cli
from microsr.config import ClinicalVolume, MicroVolume
from microsr.config.sheet import Scan
from microsr.core.errors import UserError
from microsr.preprocessing.regions import given
from microsr.preprocessing.regions.values import values_outline
from microsr.preprocessing.volumes import import_clinical, import_micro
from microsr.volume.storage import Volume, open_mask, open_volume, write_volume

SPACING, ORIGIN = (0.5, 0.5, 1.0), (-10.0, 5.0, 30.0)
GREYS = {"air_grey": 0, "tissue_grey": 1040}
FILE = {"mask": "file"}


def image(array, spacing=SPACING, origin=ORIGIN):
    found = sitk.GetImageFromArray(np.asarray(array))
    found.SetSpacing(spacing)
    found.SetOrigin(origin)
    return found


def save(path, array, **place):
    sitk.WriteImage(image(array, **place), str(path))
    return str(path)


@pytest.fixture
def bone():
    """HU [5, 40, 48]: two bones, of cortex (1500) about marrow (0), in soft tissue (40) of slightly different HU."""
    row, column = np.indices((40, 48))
    hu = np.full((5, 40, 48), 40, np.int16) + (np.arange(48) % 3).astype(np.int16)
    for y, x, radius in ((14, 14, 9), (27, 36, 7)):
        distance = np.hypot(row - y, column - x)
        hu[:, distance <= radius] = 1500
        hu[:, distance <= radius - 3] = 0
    return hu


@pytest.fixture
def label():
    """Labels [5, 40, 48], none of which is its own mirror image."""
    found = np.zeros((5, 40, 48), np.uint8)
    found[1:, 4:20, 6:30] = 1
    found[3, 20:23, 8:11] = 7
    return found


def clinical(tmp_path, scan, given=None, **settings):
    output = tmp_path / "o" / "c.ome.zarr"
    import_clinical(scan, "a", ClinicalVolume.model_validate(settings), output, given)
    return open_mask(output)[:] > 0


def micro(tmp_path, scan, given=None, **settings):
    output = tmp_path / "o" / "m.ome.zarr"
    settings = {"sampling": "native", "calibration": GREYS} | settings
    import_micro(scan, "a", MicroVolume.model_validate(settings), output, mask=given)
    return open_mask(output)[:] > 0


def test_no_chest_is_needed_where_the_mask_is_no_lung(tmp_path, bone, capsys):
    scan = Scan(path=save(tmp_path / "in.nrrd", bone))
    with pytest.raises(UserError, match=r"are not the HU of a chest CT.*volumes\.clinical\.organ"):
        clinical(tmp_path, scan)
    assert clinical(tmp_path, scan, mask="none").all()
    volume = open_volume(tmp_path / "o" / "c.ome.zarr")
    assert not volume.is_lung and volume.attributes["mask"] == "none"
    with pytest.raises(UserError, match=r"holds no lung.*volumes\.clinical\.mask"):
        clinical(tmp_path, scan, mask="lung", organ="other")


def test_a_mask_of_no_lung_may_be_of_a_chest(tmp_path, chest):
    scan = Scan(path=save(tmp_path / "in.nrrd", np.rint(chest).astype(np.int16)))
    clinical(tmp_path, scan, mask="none", organ="lung")
    assert open_volume(tmp_path / "o" / "c.ome.zarr").is_lung


@pytest.mark.parametrize("values", [lambda hu: (hu + 1000) / 2500, lambda hu: hu * 30.0])
def test_what_no_ct_holds_is_refused_of_any_organ(tmp_path, bone, values):
    scan = Scan(path=save(tmp_path / "in.nrrd", values(bone.astype(np.float32)).astype(np.float32)))
    with pytest.raises(UserError, match=r"in\.nrrd: values from .* are not HU"):
        clinical(tmp_path, scan, mask="none")


def test_padding_is_in_no_mask(tmp_path, bone):
    bone[:, :, :9] = -2000
    scan = Scan(path=save(tmp_path / "in.nrrd", bone))
    for settings in ({"mask": "none"}, {"mask": "values", "mask_range": (-3000, 3000)}):
        inside = clinical(tmp_path, scan, **settings)
        assert not inside[:, :, :9].any() and inside[:, :, 9:].all()
    with pytest.raises(UserError, match="mask is empty: all of it lies outside"):
        clinical(tmp_path, scan, save(tmp_path / "m.nrrd", (bone < -1000).astype(np.uint8)), **FILE)


def test_values_are_those_within_the_range_closed_and_filled(tmp_path, bone):
    scan = Scan(path=save(tmp_path / "in.nrrd", bone))
    settings = {"mask": "values", "mask_range": (300, 3000), "closing_mm": 0}
    assert np.array_equal(clinical(tmp_path, scan, **settings, fill_mm=0), bone == 1500)
    filled = np.stack([ndimage.binary_fill_holes(one) for one in bone == 1500])
    assert np.array_equal(clinical(tmp_path, scan, **settings), filled)
    one = clinical(tmp_path, scan, **settings, fill_mm=5)
    assert not one[:, 14, 14].any() and one[:, 27, 36].all(), "a hole of 13 pixels, 6.5 mm, and one of 9, 4.5 mm"
    bone[:, 14, :10] = 40
    scan = Scan(path=save(tmp_path / "gap.nrrd", bone))
    assert not clinical(tmp_path, scan, **settings)[:, 14, 14].any(), "a gap of 0.5 mm"
    assert clinical(tmp_path, scan, **settings | {"closing_mm": 2})[:, 14, 14].all()


def test_values_leave_out_small_parts_and_say_what_there_is_instead(tmp_path, bone):
    bone[2, 5, 40] = 1500
    scan = Scan(path=save(tmp_path / "in.nrrd", bone))
    assert not clinical(tmp_path, scan, mask="values", mask_range=(300, 3000), closing_mm=0)[2, 5, 40]
    with pytest.raises(UserError, match=r"in\.nrrd: no voxel lies within mask_range, 2000 to 3000; .* 0 to 1500"):
        clinical(tmp_path, scan, mask="values", mask_range=(2000, 3000))
    clinical(tmp_path, scan, mask="values", mask_range=(0, 1500))  # as the message advises


def test_a_part_is_small_by_its_whole_and_in_a_lone_slice_by_that_slice(tmp_path, bone):
    bone[0, 18:, 27:] = 40
    bone[0, 27, 42] = 1500  # the end of a bone, of one pixel
    scan = Scan(path=save(tmp_path / "in.nrrd", bone))
    settings = {"mask": "values", "mask_range": (300, 3000), "closing_mm": 0, "fill_mm": 0}
    assert np.array_equal(clinical(tmp_path, scan, **settings), bone == 1500)
    grey = np.zeros((3, 80, 80), np.uint16)
    grey[0, 5:75, 5:75] = grey[0, 0, 79] = grey[1, 20:24, 30:34] = 900  # none in the last one
    (tmp_path / "lone").mkdir()
    for z, one in enumerate(grey):
        sitk.WriteImage(sitk.GetImageFromArray(one), str(tmp_path / "lone" / f"{z}.png"))
    scan = Scan(path=str(tmp_path / "lone"), spacing="0.02")
    grey[0, 0, 79] = 0
    assert np.array_equal(micro(tmp_path, scan, **settings), grey == 900)


def test_a_block_counts_where_most_of_it_is_in_the_field_of_view_by_the_mean_of_that_part():
    padding = np.zeros((1, 6, 6), bool)
    padding[0, :, 3:5][[0, 1, 2, 0, 1], [0, 0, 0, 1, 1]] = True  # five of the nine pixels above, right
    padding[0, 3:5, :2] = True  # four of the nine below, left
    grey = np.where(padding, -2000.0, 100.0)
    settings = ClinicalVolume(mask="values", mask_range=(90, 110), closing_mm=0, fill_mm=0)
    assert values_outline(grey, (1.0, 1.0), settings, padding, factor=3)[0].tolist() == [[True, False], [True, True]]


def test_values_of_a_uct_are_grey_and_found_on_a_coarser_grid(tmp_path, bone):
    grey = np.kron(bone + 1000, np.ones((1, 13, 13), np.int16))  # 520 x 624 pixels: means of 3 x 3
    scan = Scan(path=save(tmp_path / "in.nrrd", grey, spacing=(0.02, 0.02, 0.02)))
    found = micro(tmp_path, scan, mask="values", mask_range=(2000, 3000), closing_mm=0, fill_mm=0)
    assert np.mean(found != (grey == 2500)) < 0.02
    closed = micro(tmp_path, scan, mask="values", mask_range=(2000, 3000))
    assert closed[:, 14 * 13, 14 * 13].all() and not closed[:, 2 * 13, 40 * 13].any()
    pieces = Scan(path=save(tmp_path / "in.png", grey[0].astype(np.uint16)), spacing="0.02")
    found = micro(tmp_path, pieces, mask="values", mask_range=(2000, 3000), closing_mm=0, fill_mm=0)
    assert found.shape == (1, 520, 624) and np.mean(found[0] != (grey[0] == 2500)) < 0.02
    assert micro(tmp_path, scan, mask="none").all()


@pytest.mark.parametrize(
    "ending", ["nrrd", "nii.gz", "mha", "tif", "flipped.nii", "turned.nrrd", "part.mha", "slab.nii", "store.ome.zarr"]
)
def test_masks_of_many_formats_lie_where_they_belong(tmp_path, bone, label, ending):
    """Flipped and turned: the voxels are numbered otherwise, in the same place; part: a block with all labels; store: a
    folder, which has a place though a picture of it lies there.
    """
    scan = Scan(path=save(tmp_path / "in.nrrd", bone))
    path, mask = tmp_path / f"m.{ending}", image(label)
    if ending == "flipped.nii":
        mask = sitk.Flip(mask, (True, True, True))
    elif ending == "turned.nrrd":
        mask = sitk.PermuteAxes(mask, (1, 0, 2))
    elif ending == "part.mha":
        mask = mask[5:31, 3:24, 1:5]
    elif ending == "slab.nii":
        scan, label = scan.model_copy(update={"slices": "2:4", "region": "3:33,2:40"}), label[2:4, 3:33, 2:40]
    if ending == "store.ome.zarr":
        write_volume(path, Volume(label[1:5, 3:24, 5:31], SPACING, (-7.5, 6.5, 31.0), unit="label"))
        (path / "preview.png").touch()
    else:
        sitk.WriteImage(mask, str(path))
    assert np.array_equal(clinical(tmp_path, scan, str(path), **FILE), label > 0)


def test_a_folder_of_images_is_the_mask_of_all_or_of_the_part_taken(tmp_path, bone, label):
    for z, one in enumerate(label):
        (tmp_path / "m").mkdir(exist_ok=True)
        sitk.WriteImage(sitk.GetImageFromArray(one), str(tmp_path / "m" / f"{z}.PNG"))
    scan = Scan(path=save(tmp_path / "in.nrrd", bone), slices="1:4", region="2:30,4:40")
    part = label[1:4, 2:30, 4:40]
    assert np.array_equal(clinical(tmp_path, scan, str(tmp_path / "m"), **FILE), part > 0)
    mask = save(tmp_path / "part.TIF", part)
    assert np.array_equal(clinical(tmp_path, scan, mask, **FILE), part > 0)
    mask = save(tmp_path / "other.tif", label[:, :-1])
    with pytest.raises(UserError, match=r"other\.tif: has 5 slices of 48x39 pixels, not those of .* \(5 of 48x40\)"):
        clinical(tmp_path, scan, mask, **FILE)


def test_a_mask_without_a_place_is_of_no_slices_that_were_put_on_an_even_grid():
    """It has those of the files, which are others."""
    even, mask = (Volume(np.zeros((slices, 4, 5)), (1.0,) * 3) for slices in (7, 6))
    even.attributes["source"] = {"size": [5, 4, 6]}
    assert [axis.of(0) for axis in given._fit_by_size("m.tif", Scan(path="s"), even, mask)] == [0, 0, 0]
    with pytest.raises(UserError, match=r"m\.tif: has 6 slices of 5x4 pixels, not those of s \(6 of 5x4\) nor of the"):
        given._fit_by_size("m.tif", Scan(path="s", resample="even"), even, mask)


def test_a_uct_takes_a_mask_of_its_own_grid(tmp_path, bone, label):
    scan = Scan(path=save(tmp_path / "in.nrrd", bone + 1000, spacing=(0.05,) * 3))
    mask = save(tmp_path / "m.nii.gz", label, spacing=(0.05,) * 3)
    assert np.array_equal(micro(tmp_path, scan, mask, **FILE), label > 0)
    half = micro(tmp_path, scan, mask, **FILE, sampling="matched", matched_spacing_mm=0.1)
    expected = label[1:, 4:20, 6:30].sum() * 0.05**3
    assert half.sum() * 0.1**3 == pytest.approx(expected, rel=0.3)
    percentile = {"method": "percentile", "low_percentile": 0, "high_percentile": 100}
    micro(tmp_path, scan, mask, **FILE, calibration=percentile)
    facts = open_volume(tmp_path / "o" / "m.ome.zarr").attributes["calibration"]
    inside = (bone + 1000)[label > 0]
    assert (facts["low_grey"], facts["high_grey"]) == (inside.min(), inside.max()), "what is outside has no say"


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ({"origin": (-9.8, 5, 30)}, "lie up to 0.4 voxels apart"),
        ({"spacing": (1, 1, 1)}, "voxels of 1 x 1 x 1 mm, not 0.5 x 0.5 x 1"),
        ({"spacing": (0.55, 0.5, 1)}, "voxels apart"),
    ],
)
def test_a_mask_of_another_grid_is_refused_until_it_is_resampled(tmp_path, bone, label, place, said):
    scan = Scan(path=save(tmp_path / "in.nrrd", bone))
    mask = save(tmp_path / "m.nrrd", label, **place)
    with pytest.raises(UserError, match=r"m\.nrrd: its grid is not that of .*in\.nrrd: .*nearest neighbour") as error:
        clinical(tmp_path, scan, mask, **FILE)
    assert said in str(error.value)
    nearest = sitk.Resample(
        sitk.ReadImage(mask), sitk.ReadImage(scan.path), sitk.Transform(), sitk.sitkNearestNeighbor
    )  # as docs/data.md has it
    sitk.WriteImage(nearest, str(tmp_path / "again.nrrd"))
    inside = clinical(tmp_path, scan, str(tmp_path / "again.nrrd"), **FILE)
    assert np.array_equal(inside, sitk.GetArrayFromImage(nearest) > 0) and inside.any()


def test_a_mask_that_is_turned_is_refused(tmp_path, bone, label):
    scan = Scan(path=save(tmp_path / "even.nrrd", bone, spacing=(1, 1, 1)))
    sitk.WriteImage(sitk.PermuteAxes(image(label, spacing=(1, 1, 1)), (2, 1, 0)), str(tmp_path / "x.nrrd"))
    with pytest.raises(UserError, match="its slices run along another axis"):
        clinical(tmp_path, scan, str(tmp_path / "x.nrrd"), **FILE)
    for degrees, said in ((20, "lie up to 18 voxels apart"), (45, "it is turned;")):
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        turned = image(label, spacing=(1, 1, 1))
        turned.SetDirection((c, -s, 0, s, c, 0, 0, 0, 1))
        sitk.WriteImage(turned, str(tmp_path / "t.nrrd"))
        with pytest.raises(UserError, match=rf"t\.nrrd: its grid is not that of .*{said}"):
            clinical(tmp_path, scan, str(tmp_path / "t.nrrd"), **FILE)


def test_an_empty_mask_and_none_are_refused(tmp_path, bone, label):
    scan = Scan(path=save(tmp_path / "in.nrrd", bone))
    for far in (save(tmp_path / "e.nrrd", 0 * label), save(tmp_path / "f.nrrd", label, origin=(500, 5, 30))):
        with pytest.raises(UserError, match=r"has nothing but 0 where .*in\.nrrd lies"):
            clinical(tmp_path, scan, far, **FILE)
    with pytest.raises(UserError, match=r"volumes.clinical.mask is file, but no file is given.*--mask_file"):
        clinical(tmp_path, scan, **FILE)
    with pytest.raises(UserError, match=r"volumes\.micro\.mask is file"):
        micro(tmp_path, Scan(path=save(tmp_path / "m.nrrd", bone + 1000, spacing=(0.05,) * 3)), **FILE)
    assert not any((tmp_path / "o").iterdir())


def test_a_command_takes_a_mask(tmp_path, bone, label):
    scan, mask = save(tmp_path / "in.nrrd", bone), save(tmp_path / "m.nrrd", label)
    output = tmp_path / "c.ome.zarr"
    words = ["--case", "a", "--input", scan, "--output", str(output), "--mask", "file", "--mask_file", mask]
    cli.main(["volumes", "clinical", *words])
    assert np.array_equal(open_mask(output)[:] > 0, label > 0)
    words = ["--case", "a", "--input", scan, "--output", str(output), "--mask", "values", "--mask_range", "[300, 3000]"]
    cli.main(["volumes", "clinical", *words])
    assert open_mask(output)[:].any()


def test_a_range_must_be_given_and_rise():
    for model in (ClinicalVolume, MicroVolume):
        with pytest.raises(ValueError, match="mask is values, so mask_range must give"):
            model(mask="values")
        with pytest.raises(ValueError, match="mask_range must rise"):
            model(mask="values", mask_range=(3, 3))
