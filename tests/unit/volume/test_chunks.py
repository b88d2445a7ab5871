"""Slices straight into chunk files: the very files that Zarr writes."""

import numpy as np
import pytest
import zarr

from microsr.volume import storage
from microsr.volume.chunks import SliceWriter
from microsr.volume.storage import Volume, create_volume, open_mask, open_volume

GEOMETRY = Volume(None, (1, 1, 1))


def files(folder):
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("shape", [(3, 40, 50), (2, 20, 20), (2, 21, 45)])
def test_the_files_are_those_that_zarr_writes(tmp_path, monkeypatch, shape):
    monkeypatch.setattr(storage, "CHUNK", 20)
    random = np.random.default_rng(0)
    hu, inside = random.integers(-1000, 100, shape).astype(np.int16), random.random(shape) < 0.5
    inside[0] = False
    for name in ("zarr", "ours"):
        voxels, mask = create_volume(tmp_path / name, shape, GEOMETRY, mask=True)
        if name == "ours":
            voxels, mask = SliceWriter(voxels), SliceWriter(mask)
        else:
            mask = mask.with_config({"write_empty_chunks": True})
        for z in range(shape[0]):
            voxels[z] = hu[z]
            mask[z] = inside[z].view(np.uint8)
    assert files(tmp_path / "ours") == files(tmp_path / "zarr")
    assert np.array_equal(open_volume(tmp_path / "ours").array[:], hu)
    assert np.array_equal(open_mask(tmp_path / "ours")[:], inside)


def test_slices_that_are_not_contiguous_are_written_as_they_are(tmp_path):
    voxels, _ = create_volume(tmp_path / "a", (1, 30, 40), GEOMETRY)
    image = np.arange(1200, dtype=np.int16).reshape(40, 30).T
    SliceWriter(voxels)[0] = image
    assert np.array_equal(open_volume(tmp_path / "a").array[0], image)


@pytest.mark.parametrize("options", [{"chunks": (2, 4, 4)}, {"compressors": zarr.codecs.GzipCodec()}])
def test_arrays_of_another_kind_are_refused(tmp_path, options):
    array = zarr.create_array(
        str(tmp_path / "a"), **{"shape": (4, 4, 4), "chunks": (1, 4, 4), "dtype": "int16", **options}
    )
    with pytest.raises(ValueError, match="not slices packed by Blosc"):
        SliceWriter(array)
