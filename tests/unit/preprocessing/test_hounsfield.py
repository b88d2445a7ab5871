"""A clinical CT in HU slice by slice: the values and the padding of the whole volume."""

import numpy as np
import pytest
import whole_masks

from microsr.core.errors import UserError
from microsr.preprocessing.hounsfield import as_int16, clinical_hu
from microsr.volume.slices import Slices
from microsr.volume.storage import Volume


def volume(grey, declared=None):
    array = Slices(grey.__getitem__, grey.shape, grey.dtype)
    return Volume(array, (1, 1, 1), unit="grey", attributes={"source": {"padding": declared}, "kept": 1})


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32])
@pytest.mark.parametrize("declared", [None, 0, -2000, -1024])
@pytest.mark.parametrize("lowest_at", ["first", "last", "middle", "everywhere"])
def test_hu_and_padding_are_those_of_the_whole_volume(chest, dtype, declared, lowest_at):
    """The lowest value, a padding value that no header declares, is known when the last slice has been seen."""
    grey = np.rint(chest) if np.dtype(dtype).kind == "i" else chest
    grey = np.maximum(grey, -1020).astype(dtype)
    grey[:, :, :9] = -1022
    grey[2, :20, 50:] = -1024 if declared == -1024 else -1023
    place = {"first": 0, "last": -1, "middle": 3, "everywhere": slice(None)}[lowest_at]
    grey[place, :, :12] = -1050
    grey[4, 40:, 58:] = -2000
    grey[3, :20, 50:] = 0  # tissue, even if it is declared to be padding
    grey[1, 5, 5] = -1051
    hu, padding = whole_masks.hu_and_padding(grey, declared)
    found = clinical_hu(volume(grey, declared), "a.nii")
    assert np.array_equal(np.asarray(found.array.padding), padding)
    assert np.array_equal(np.asarray(found.array), hu) and found.array[0].dtype == np.int16
    assert found.unit == "HU" and found.attributes["kept"] == 1
    grey[1, 5, 5] = -1000
    hu, padding = whole_masks.hu_and_padding(grey, declared)
    found = clinical_hu(volume(grey, declared), "a.nii").array
    assert (
        padding.any() and np.array_equal(np.asarray(found.padding), padding) and np.array_equal(np.asarray(found), hu)
    )


def test_slices_are_read_once_until_they_are_asked_for(chest):
    asked = []
    grey = np.rint(chest).astype(np.int16)
    array = Slices(lambda z: asked.append(z) or grey[z], grey.shape, grey.dtype)
    found = clinical_hu(Volume(array, (1, 1, 1), unit="grey"), "a.nii").array
    assert sorted(asked) == list(range(6))
    asked.clear()
    assert np.array_equal(found[2], grey[2])
    _ = found.padding[3]
    assert asked == [2]


def test_padding_that_hides_all_air_is_no_chest():
    """Air that is padding does not count as aerated, in the slices of the lowest value too."""
    grey = np.full((6, 64, 64), 40, np.int16)
    grey[:, :, :9] = -1000
    with pytest.raises(UserError, match=r"a\.nii: values from -1000 to 40 are not the HU of a chest CT"):
        clinical_hu(volume(grey), "a.nii")


def test_a_constant_scan_is_refused_as_such():
    with pytest.raises(UserError, match="is constant"):
        clinical_hu(volume(np.full((2, 8, 8), -800, np.int16)), "a.nii")


@pytest.mark.parametrize(("share", "refused"), [(0.009, False), (0.011, True)])
def test_a_scan_of_which_a_hundredth_is_above_any_tissue_is_not_in_hu(chest, share, refused):
    """Metal is, in some pixels; so is a scan whose intercept (often -1024) or slope was left out, in many."""
    grey = np.rint(chest).astype(np.int16)
    grey.ravel()[: round(share * grey.size)] = 4001
    if refused:
        with pytest.raises(UserError, match="4001 are not the HU of a chest CT"):
            clinical_hu(volume(grey), "a.nii")
    else:
        assert np.array_equal(clinical_hu(volume(grey), "a.nii").array[0] > 4000, grey[0] > 4000)
        grey[grey == 4001] = 4000
        grey.ravel()[: grey.size // 10] = 4000
        clinical_hu(volume(grey), "a.nii")  # 4000 itself is bone


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.uint64, np.float32])
def test_values_are_rounded_and_clipped(dtype):
    values = np.array([0, 1, 70000, 2.5, 3.5]).astype(np.float32 if dtype == np.float32 else np.int64)
    values = np.clip(values, 0, np.iinfo(dtype).max if dtype != np.float32 else None).astype(dtype)
    expected = np.clip(np.rint(values.astype(float)), -32768, 32767)
    assert as_int16(values).dtype == np.int16 and np.array_equal(as_int16(values), expected)
    assert values[0] == 0
