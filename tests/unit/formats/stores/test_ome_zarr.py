"""OME-Zarr of other programs: what zarr or tensorstore wrote is read, each level in its place, or refused with the true
reason.
"""

import json
import logging
import shutil

import numcodecs
import numpy as np
import pytest
import tensorstore
import zarr
from reading import read, refused
from serving import served

from microsr.config.sheet import Scan
from microsr.core import urls
from microsr.core.errors import UserError
from microsr.formats.readers import read_scan
from microsr.formats.stores import access

SHAPE = (9, 20, 17)


@pytest.fixture
def values():
    return np.random.default_rng(0).integers(1, 60000, SHAPE).astype(np.uint16)


def multiscale(axes="zyx", unit="micrometer", scale=(13.0, 12.0, 11.0), levels=1, shift=None):
    datasets = []
    for level in range(levels):
        factor = 2**level
        steps = [{"type": "scale", "scale": [1.0] * (len(axes) - 3) + [s * factor for s in scale]}]
        if shift is not None:
            steps.append({"type": "translation", "translation": [0.0] * (len(axes) - 3) + list(shift)})
        datasets.append({"path": str(level), "coordinateTransformations": steps})
    kinds = {"t": {"type": "time"}, "c": {"type": "channel"}}
    found = [{"name": a, **kinds.get(a, {"type": "space", **({"unit": unit} if unit else {})})} for a in axes]
    return {"axes": found, "datasets": datasets}


def write(path, arrays, said, version="0.5", chunks=(4, 8, 8), **how):
    """A store of these arrays, one a level, by zarr."""
    group = zarr.create_group(str(path), zarr_format=3 if version == "0.5" else 2)
    if version == "0.5":
        group.attrs["ome"] = {"version": "0.5", "multiscales": [said]}
    else:
        group.attrs["multiscales"] = [{"version": version, **said}]
    for level, array in enumerate(arrays):
        chunks = (*[1] * (array.ndim - 3), *chunks[-3:])
        chunks = tuple(min(c, s) for c, s in zip(chunks, array.shape, strict=True))
        made = group.create_array(str(level), shape=array.shape, dtype=array.dtype, chunks=chunks, **how)
        made[:] = array
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(("axes", "extra"), [("zyx", ()), ("czyx", (1,)), ("tczyx", (1, 1))])
def test_a_level_is_read_in_its_place(tmp_path, values, version, axes, extra):
    coarse = np.ascontiguousarray(values[::2, ::2, ::2])
    arrays = [a.reshape(*extra, *a.shape) for a in (values, coarse)]
    path = write(tmp_path / "a.zarr", arrays, multiscale(axes, levels=2, shift=(6.0, 4.0, 2.0)), version)
    fine, level = read(path), read(path, level=1)
    assert np.array_equal(fine.array, values) and np.array_equal(level.array, coarse)
    assert fine.spacing == pytest.approx((0.011, 0.012, 0.013)) and level.spacing == pytest.approx(
        (0.022, 0.024, 0.026)
    )
    assert fine.origin == pytest.approx((0.002, 0.004, 0.006)) and fine.array.dtype == np.uint16
    assert level.attributes["source"] == {
        "format": "OME-Zarr", "size": [9, 10, 5], "spacing": list(level.spacing), "spacing_from": "file", "level": 1,
        "levels": 2,
    }  # fmt: skip
    refused("has no level 2: it has 2, the finest is 0", path, level=2)


@pytest.mark.parametrize("axes", ["zyx", "xyz", "yzx"])
def test_axes_are_taken_by_their_names(tmp_path, values, axes):
    stored = values.transpose(["zyx".index(name) for name in axes])
    steps = dict(zip("zyx", (13.0, 12.0, 11.0), strict=True))
    path = write(
        tmp_path / "a.zarr", [stored], multiscale(axes, scale=[steps[a] for a in axes]), dimension_names=list(axes)
    )
    volume = read(path)
    assert np.array_equal(volume.array, values) and volume.spacing == pytest.approx((0.011, 0.012, 0.013))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32", "float64", ">i2"])
def test_values_keep_their_type(tmp_path, values, dtype):
    stored = (values % 200).astype(dtype)
    volume = read(write(tmp_path / "a.zarr", [stored], multiscale(), "0.4"))
    assert np.array_equal(volume.array, stored)


def test_shards_are_read(tmp_path, values):
    path = write(tmp_path / "a.zarr", [values], multiscale(), chunks=(4, 4, 4), shards=(8, 16, 16))
    assert np.array_equal(read(path).array, values)


def test_what_tensorstore_wrote_is_read(tmp_path, values):
    path = tmp_path / "a.zarr"
    metadata = {
        "shape": SHAPE,
        "chunks": (4, 8, 8),
        "dtype": "<u2",
        "compressor": {"id": "zstd", "level": 1},
        "dimension_separator": "/",
    }
    spec = {"driver": "zarr", "kvstore": {"driver": "file", "path": str(path / "0")}, "metadata": metadata}
    tensorstore.open(spec, create=True).result().write(values).result()
    (path / ".zgroup").write_text('{"zarr_format": 2}')
    (path / ".zattrs").write_text(json.dumps({"multiscales": [{"version": "0.4", **multiscale()}]}))
    assert np.array_equal(read(path).array, values)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_slices_and_a_region_read_only_their_chunks(tmp_path, values, version):
    path = write(tmp_path / "a.zarr", [values], multiscale(), version)
    with served(tmp_path) as (address, asked):
        volume = read_scan(Scan(path=f"{address}/a.zarr", slices="5:7", region="9:15,8:16"))
        assert np.array_equal(volume.array, values[5:7, 9:15, 8:16])
        assert np.array_equal(volume.array, values[5:7, 9:15, 8:16])
        chunks = [key for key in asked if key[-1].isdigit()]
    assert len(chunks) == 1 and asked[chunks[0]] == 1
    assert volume.origin == pytest.approx((8 * 0.011, 9 * 0.012, 5 * 0.013))
    assert volume.attributes["slices"] == [5, 7] and volume.attributes["region"] == [9, 15, 8, 16]
    refused("region 9:30,: does not fit: a slice has 20 rows and 17 columns", path, region="9:30,:")


def test_a_volume_of_the_pipeline_is_a_scan_with_its_direction(tmp_path, values):
    from microsr.volume.storage import Volume, write_volume

    turned = (0.6, -0.8, 0.0, 0.8, 0.6, 0.0, 0.0, 0.0, 1.0)
    hu = (values % 2000).astype(np.int16) - 1000
    write_volume(tmp_path / "v.ome.zarr", Volume(hu, (0.5, 0.6, 0.7), (1.0, 2.0, 3.0), turned))
    volume = read(tmp_path / "v.ome.zarr", slices="2:4")
    assert np.array_equal(volume.array, hu[2:4]) and volume.direction == turned
    assert volume.origin == pytest.approx((1, 2, 4.4)) and volume.spacing == (0.5, 0.6, 0.7)


def test_chunks_are_decoded_once(tmp_path, values, monkeypatch):
    path = write(tmp_path / "a.zarr", [values], multiscale())
    volume, count = read(path), []
    get = access._Folder.get
    monkeypatch.setattr(access._Folder, "get", lambda self, key, *part: count.append(key) or get(self, key, *part))
    for _ in range(2):
        assert np.array_equal(volume.array, values)
    assert len(count) == len(set(count)) == 3 * 3 * 3


def test_without_room_chunks_are_decoded_every_time(tmp_path, values, monkeypatch):
    path = write(tmp_path / "a.zarr", [values], multiscale())
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(1, 1, 0))
    assert np.array_equal(read(path).array, values)


# Parts that are missing


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_slice_without_any_chunk_is_refused(tmp_path, values, version):
    path = write(tmp_path / "a.zarr", [values], multiscale(), version)
    shutil.rmtree(path / "0" / "c" / "1") if version == "0.5" else [p.unlink() for p in (path / "0").glob("1.*")]
    refused("its slice 4 has no chunk at all; copy the store again", path)
    assert np.array_equal(read(path, slices="0:4").array, values[:4]), "as the message advises"


def test_a_missing_chunk_is_told(tmp_path, values, caplog):
    path = write(tmp_path / "a.zarr", [values], multiscale())
    (path / "0/c/1/2/0").unlink()
    expected = values.copy()
    expected[4:8, 16:, :8] = 0
    with caplog.at_level(logging.WARNING):
        assert np.array_equal(read(path).array, expected)
    assert [r.getMessage() for r in caplog.records] == [
        f"{path}: lacks chunks, as 1 of 9 in slice 4, which are taken for its fill value 0; compare it with its source "
        "if its writer "
        "does not leave out empty ones"
    ]


def test_a_missing_chunk_without_a_fill_value_is_refused(tmp_path, values):
    path = write(tmp_path / "a.zarr", [values], multiscale(), "0.4")
    meta = path / "0/.zarray"
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"fill_value": None}))
    (path / "0/1.2.0").unlink()
    refused("it lacks chunk 1.2.0, and says nothing of what to take for it", path)


BLOSC = {"compressors": [zarr.codecs.BloscCodec(cname="lz4")]}


@pytest.mark.parametrize(
    ("version", "how"),
    [
        ("0.4", {"compressors": [numcodecs.Zlib()]}),
        ("0.4", {"compressors": [numcodecs.Blosc()]}),
        ("0.4", {"compressors": None}),
        ("0.5", {}),
        ("0.5", BLOSC),
        ("0.5", {"compressors": None}),
    ],
)
def test_a_truncated_chunk_is_refused(tmp_path, values, version, how):
    path = write(tmp_path / "a.zarr", [values], multiscale(), version, **how)
    chunk = path / ("0/c/1/1/1" if version == "0.5" else "0/1.1.1")
    chunk.write_bytes(chunk.read_bytes()[:30])
    refused("is damaged or truncated \\(its chunk", path)


@pytest.mark.parametrize("how", [{}, BLOSC])
def test_a_truncated_shard_is_refused(tmp_path, values, how):
    path = write(tmp_path / "a.zarr", [values], multiscale(), chunks=(4, 4, 4), shards=(8, 16, 16), **how)
    assert np.array_equal(read(path).array, values)
    shard = path / "0/c/0/0/0"
    shard.write_bytes(shard.read_bytes()[:-100])
    refused("is damaged or truncated \\(its chunk", path)


def test_a_store_that_was_copied_in_part_is_refused(tmp_path, values):
    path = write(tmp_path / "a.zarr", [values], multiscale())
    (path / "0/zarr.json").unlink()
    refused("a level of it has no sound metadata", path)
    (path / "zarr.json").unlink()
    refused("holds no zarr.json, .zattrs, .zgroup, .zarray or attributes.json", path)


# What is no image of one channel


def without(said, key):
    return {k: v for k, v in said.items() if k != key}


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (multiscale("zcyx", scale=(1, 1, 1)), "are not time, channel and then z, y and x"),
        (multiscale("czyx"), "are not those of its array of 3 dimensions"),
        ({**multiscale(), "axes": multiscale("zyy")["axes"]}, "are not time, channel and then z, y and x"),
        ({**multiscale(), "axes": "zyx"}, "its multiscales are not as OME-Zarr has them: axes"),
        (without(multiscale(), "datasets"), "its multiscales are not as OME-Zarr has them: datasets"),
        (multiscale(scale=(1.0, 1.0)), "its coordinateTransformations do not fit its axes"),
        (multiscale(scale=(1.0, 0.0, 1.0)), "has no voxel spacing, or an impossible one"),
        (multiscale(unit=None), "has no voxel spacing, or an impossible one"),
        (multiscale(unit="parsec"), "has no voxel spacing, or an impossible one"),
        ([], "but no image of OME-Zarr; give the folder in it whose metadata have multiscales"),
        (
            {**multiscale(), "datasets": [{"path": "../0", "coordinateTransformations": []}]},
            "a level of it lies elsewhere",
        ),
    ],
)
def test_a_store_that_is_not_certain_is_refused(tmp_path, values, said, message):
    path = write(tmp_path / "a.zarr", [values], multiscale())
    meta = json.loads((path / "zarr.json").read_text())
    meta["attributes"]["ome"]["multiscales"] = [said] if said else []
    (path / "zarr.json").write_text(json.dumps(meta))
    refused(message, path)


def test_axes_that_the_array_names_otherwise_are_refused(tmp_path, values):
    path = write(tmp_path / "a.zarr", [values], multiscale(), dimension_names=("x", "y", "z"))
    refused("its axes by OME-Zarr are not those of its array", path)


def test_a_spacing_of_the_sheet_does_for_a_store_without_one(tmp_path, values):
    said = {**multiscale(unit=None), "datasets": [{"path": "0"}]}
    path = write(tmp_path / "a.zarr", [values], said)
    refused("has no voxel spacing", path)
    assert read(path, spacing="0.1x0.2x0.3").spacing == (0.1, 0.2, 0.3)


def test_several_channels_are_refused(tmp_path, values):
    path = write(tmp_path / "a.zarr", [np.stack([values, values])], multiscale("czyx"))
    refused("has several channels or times \\(shape 2x9x20x17\\)", path)


def test_labels_of_truth_values_are_refused(tmp_path, values):
    refused("holds no grey values", write(tmp_path / "a.zarr", [values > 9], multiscale()))


def test_another_version_is_refused(tmp_path, values):
    path = write(tmp_path / "a.zarr", [values], multiscale())
    text = (path / "zarr.json").read_text()
    (path / "zarr.json").write_text(text.replace('"0.5"', '"0.6"'))
    refused("is of a version of OME-Zarr that is not supported; save it as 0.4 or 0.5", path)
    (path / "zarr.json").write_text(text[:50])
    refused("its metadata are no JSON of Zarr", path)


def test_an_array_alone_is_refused_and_the_group_above_is_read(tmp_path, values):
    path = write(tmp_path / "a.zarr", [values, values], multiscale(levels=2))
    with pytest.raises(UserError, match=r"of a single array the folder above it") as error:
        read(path / "1")
    assert str(path / "1") in str(error.value)
    assert np.array_equal(read(path, level=1).array, values), "as the message advises"


def test_a_level_of_what_has_one_only_is_refused(tmp_path, values):
    import SimpleITK as sitk

    sitk.WriteImage(sitk.GetImageFromArray(values), str(tmp_path / "a.nrrd"))
    refused("has one resolution only; leave the level out, or give 0", tmp_path / "a.nrrd", level=1)
    assert read(tmp_path / "a.nrrd", level=0).shape == SHAPE


# By URL


def test_a_store_is_read_by_its_url(tmp_path, values):
    write(tmp_path / "a.zarr", [values], multiscale())
    with served(tmp_path) as (address, _):
        volume = read_scan(Scan(path=f"{address}/a.zarr/"))
        assert np.array_equal(volume.array, values)
    assert volume.spacing == pytest.approx((0.011, 0.012, 0.013))


def test_a_store_is_imported_and_described_by_its_url(tmp_path, values, capsys):
    from microsr.cli import main
    from microsr.report.lineage import trace
    from microsr.volume.storage import open_volume

    write(tmp_path / "a.zarr", [values // 30], multiscale("zyx", "millimeter", (1.0, 0.5, 0.5)))
    with served(tmp_path) as (address, _):
        main(["info", f"{address}/a.zarr"])
        assert f"path                 {address}/a.zarr\n" in capsys.readouterr().out
        words = ["--input", f"{address}/a.zarr", "--region", "2:18,:", "--output", str(tmp_path / "out.ome.zarr")]
        main(["volumes", "truth", "--case", "a", *words])
    assert np.array_equal(open_volume(tmp_path / "out.ome.zarr").array[:], (values // 30)[:, 2:18])
    (run,) = trace(tmp_path / "out.ome.zarr")["records"].values()
    (found,) = run["inputs"]
    assert found == {"file": f"{address}/a.zarr", "sha256": found["sha256"], "record": None, "state": "not checked"}
    assert len(found["sha256"]) == 64
    assert run["settings"]["scan"]["region"] == "2:18,:"


def test_a_record_has_a_checksum_of_what_was_read_by_url(tmp_path, values, monkeypatch):
    from microsr.config import Calibration, MicroVolume
    from microsr.preprocessing.volumes import import_micro

    path, grey = tmp_path / "a.zarr", (values // 30)
    write(path, [grey], multiscale("zyx", "millimeter", (0.05, 0.05, 0.05)))
    settings = MicroVolume(sampling="native", calibration=Calibration(method="none"))

    def checksum_of(address, slices):
        monkeypatch.setattr(urls, "_READ", {})
        output = tmp_path / "out.ome.zarr"
        import_micro(Scan(path=f"{address}/a.zarr", slices=slices), "a", settings, output)
        (sha,) = json.loads((tmp_path / "out.run.json").read_text())["inputs"].values()
        return sha

    with served(tmp_path) as (address, _):
        first, again, other = (checksum_of(address, slices) for slices in (":4", ":4", ":"))
        last = next((path / "0").rglob("c/2/2/2"))
        last.write_bytes(next((path / "0").rglob("c/2/2/1")).read_bytes())
        unread, read_too = (checksum_of(address, slices) for slices in (":4", ":"))
    assert first == again == unread and len({first, other, read_too}) == 3 and "" not in (first, other)


def test_a_slice_too_large_to_be_is_refused_and_a_region_of_it_is_read(tmp_path):
    path = tmp_path / "a.zarr"
    group = zarr.create_group(str(path))
    group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale()]}
    group.create_array("0", shape=(2, 60000, 60000), chunks=(1, 100, 100), dtype="u1")[:, :100, :100] = 7
    refused("its slices have 60000 rows and 60000 columns, too many", path)
    assert (np.asarray(read(path, region=":100,:50").array) == 7).all()


def test_shards_are_read_by_their_url(tmp_path, values):
    write(tmp_path / "a.zarr", [values], multiscale(), chunks=(4, 4, 4), shards=(8, 16, 16))
    with served(tmp_path) as (address, _):
        assert np.array_equal(read_scan(Scan(path=f"{address}/a.zarr")).array, values)


def test_a_server_that_fails_at_first_is_asked_again(tmp_path, values, monkeypatch):
    monkeypatch.setattr(access.time, "sleep", lambda seconds: None)
    write(tmp_path / "a.zarr", [values], multiscale())
    failures = iter([503, 0])

    def answer(path):
        return next(failures, None) if path.endswith("c/1/1/1") else None

    with served(tmp_path, answer) as (address, asked):
        assert np.array_equal(read_scan(Scan(path=f"{address}/a.zarr")).array, values)
    assert asked["/a.zarr/0/c/1/1/1"] == 3


@pytest.mark.parametrize(("status", "why"), [(500, "HTTP 500"), (0, "IncompleteRead")])
def test_a_server_that_keeps_failing_is_told(tmp_path, values, monkeypatch, status, why):
    monkeypatch.setattr(access.time, "sleep", lambda seconds: None)
    write(tmp_path / "a.zarr", [values], multiscale())
    with served(tmp_path, lambda path: status if path.endswith("c/1/1/1") else None) as (address, _):
        volume = read_scan(Scan(path=f"{address}/a.zarr"))
        with pytest.raises(UserError, match=rf"{address}/a.zarr: the server does not give 0/c/1/1/1 \({why}"):
            np.asarray(volume.array)


def test_a_url_where_nothing_is_is_refused(tmp_path):
    with (
        served(tmp_path) as (address, _),
        pytest.raises(UserError, match=rf"{address}/none: holds no zarr.json"),
    ):
        read_scan(Scan(path=f"{address}/none"))


def test_a_server_that_is_not_there_is_told(monkeypatch):
    monkeypatch.setattr(access.time, "sleep", lambda seconds: None)
    with pytest.raises(UserError, match=r"http://127.0.0.1:9/x: the server does not give zarr.json \(.*refused"):
        read_scan(Scan(path="http://127.0.0.1:9/x"))
