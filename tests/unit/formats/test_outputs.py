"""Outputs in foreign formats: values, place and bytes are right, and an interrupted run loses and changes nothing."""

import gzip
import os
import subprocess
import sys
import tracemalloc

import nibabel
import nrrd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from microsr.core.errors import UserError
from microsr.formats import outputs
from microsr.formats.outputs import Partial, kind_of, open_writer, raw_bytes, read_journal
from microsr.volume.storage import Volume, open_volume

NAMES = {
    "ome-zarr": "v.ome.zarr",
    "nifti": "v.nii",
    "nifti.gz": "v.nii.gz",
    "nrrd": "v.nrrd",
    "metaimage": "v.mha",
    "dicom": "v",
}
STREAMS = ("nifti", "nifti.gz", "nrrd", "metaimage")


def turned(mirror):
    """An oblique direction, about z and then about x; mirrored: left-handed, slices run the other way."""
    (c, s), (d, e) = ((np.cos(a), np.sin(a)) for a in (0.3, 0.2))
    matrix = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, d, -e], [0, e, d]])
    return tuple(float(v) for v in (matrix @ np.diag([1, 1, -1 if mirror else 1])).ravel())


def volume(mirror=False, shape=(5, 20, 24), **attributes):
    """Noise over all of int16."""
    array = np.random.default_rng(0).integers(-32768, 32768, shape).astype(np.int16)
    array[0, 0, :2] = -32768, 32767
    return Volume(array, (0.078125, 1 / 12, 1.25), (-123.456789, 50.1, -30.3), turned(mirror), attributes=attributes)


def write(path, volume, kind=None, **settings):
    """Write a whole volume and return its path."""
    with Partial(path, kind_of(path, kind), volume.shape, volume, settings) as partial:
        for image in volume.array[partial.done :]:
            partial.write(image)
        partial.finish()
    return path


def read(path):
    """Image of SimpleITK, which knows nothing of microsr."""
    if not path.is_dir():
        return sitk.ReadImage(str(path))
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(path)))
    return reader.Execute()


def content(path):
    """Names and bytes of a file or folder."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return [(str(f.relative_to(path)), f.read_bytes()) for f in files]


@pytest.mark.parametrize(("name", "kind"), [
    ("p03.ome.zarr", "ome-zarr"), ("p03.zarr", "ome-zarr"), ("p03.nii", "nifti"), ("P03.NII.GZ", "nifti.gz"),
    ("p03.nrrd", "nrrd"), ("p03.mha", "metaimage"), ("p03", "dicom"),
])  # fmt: skip
def test_the_ending_says_the_format(name, kind, tmp_path):
    assert kind_of(tmp_path / name) == kind == kind_of(tmp_path / name, kind.removesuffix(".gz"))


def test_a_folder_of_dicom_may_have_any_name_if_it_is_said_to_be_one(tmp_path):
    assert kind_of(tmp_path / "p03.v2", "dicom") == kind_of(tmp_path / "p03.repeat_dicom") == "dicom"


@pytest.mark.parametrize(("name", "kind", "problem"), [
    ("p03.png", None, "no known format; give a name that ends in .ome.zarr, .*.mha, or without ending for DICOM"),
    ("p03.v2", None, "no known format"),
    ("p03", "nifti", "its ending is not that of it"),
    ("p03.nii", "nrrd", "its ending is not that of it"), ("p03.mha", "dicom", "not that of it"),
    ("p03.nii", "analyze", "'analyze' is no known format; give one of ome-zarr, nifti"),
])  # fmt: skip
def test_an_ending_that_says_nothing_or_another_format_is_refused(name, kind, problem, tmp_path):
    with pytest.raises(UserError, match=problem):
        kind_of(tmp_path / name, kind)


@pytest.mark.parametrize("mirror", [False, True], ids=["oblique", "left-handed"])
@pytest.mark.parametrize("kind", [kind for kind in NAMES if kind != "ome-zarr"])
def test_independent_software_reads_the_same_values_in_the_same_place(kind, mirror, tmp_path):
    v = volume(mirror)
    image = read(write(tmp_path / NAMES[kind], v))
    array = sitk.GetArrayFromImage(image)
    backwards = kind == "dicom" and mirror  # read along the slice normal, so from the last slice to the first
    assert array.dtype == np.int16 and np.array_equal(array[::-1] if backwards else array, v.array)
    assert image.GetSpacing() == pytest.approx(v.spacing, rel=1e-7)
    for z, row, column in ((0, 0, 0), (0, 19, 0), (4, 0, 23), (4, 19, 23)):
        index = (column, row, 4 - z if backwards else z)
        assert image.TransformIndexToPhysicalPoint(index) == pytest.approx(v.point((z, row, column)), abs=5e-6)
    if not backwards:
        assert image.GetDirection() == pytest.approx(v.direction, abs=1e-7)


@pytest.mark.parametrize("mirror", [False, True], ids=["oblique", "left-handed"])
@pytest.mark.parametrize("kind", ["nifti", "nifti.gz"])
def test_both_transforms_of_a_nifti_say_the_same(kind, mirror, tmp_path):
    v = volume(mirror)
    image = nibabel.load(write(tmp_path / NAMES[kind], v))
    assert image.header.get_data_dtype() == np.dtype("<i2") and image.header.get_xyzt_units()[0] == "mm"
    assert np.array_equal(np.asarray(image.dataobj).T, v.array)
    expected = np.diag([-1, -1, 1, 1]) @ np.block([
        [np.reshape(v.direction, (3, 3)) * v.spacing, np.reshape(v.origin, (3, 1))], [np.array([[0, 0, 0, 1]])]
    ])  # fmt: skip
    for affine, code in (image.get_sform(coded=True), image.get_qform(coded=True)):
        assert code == 1 and affine == pytest.approx(expected, abs=5e-6)
    assert image.header["pixdim"][0] == (-1 if mirror else 1)


@pytest.mark.parametrize("mirror", [False, True], ids=["oblique", "left-handed"])
def test_pynrrd_reads_the_same_values_and_geometry(mirror, tmp_path):
    v = volume(mirror)
    array, header = nrrd.read(str(write(tmp_path / "v.nrrd", v)))
    assert np.array_equal(array.T, v.array) and header["space"] == "left-posterior-superior"
    assert np.allclose(header["space directions"].T, np.reshape(v.direction, (3, 3)) * v.spacing, atol=1e-15)
    assert np.array_equal(header["space origin"], v.origin) and header["space units"] == ["mm"] * 3


@pytest.mark.parametrize("mirror", [False, True])
def test_a_metaimage_has_the_fields_that_itk_writes(mirror, tmp_path):
    def fields(path):
        lines = path.read_bytes().split(b"LOCAL")[0].decode().splitlines()
        return {key: value.split() for key, _, value in (line.partition(" = ") for line in lines)}

    ours = write(tmp_path / "v.mha", volume(mirror))
    sitk.WriteImage(sitk.ReadImage(str(ours)), str(tmp_path / "itk.mha"))
    theirs = {key: value for key, value in fields(tmp_path / "itk.mha").items() if not key.startswith("ITK_")}
    found = fields(ours)
    assert list(found) == list(theirs)
    for key, value in found.items():
        if key in ("TransformMatrix", "Offset", "ElementSpacing"):
            assert list(map(float, value)) == list(map(float, theirs[key]))
        else:
            assert value == theirs[key]


def test_an_ome_zarr_has_levels_and_its_geometry(tmp_path):
    v = volume(True, (2, 700, 520), case="a")
    back = open_volume(write(tmp_path / "v.ome.zarr", v))
    assert np.array_equal(back.array[:], v.array) and (tmp_path / "v.ome.zarr/1/zarr.json").exists()
    assert (back.spacing, back.origin, back.direction, back.attributes) == (
        v.spacing,
        v.origin,
        v.direction,
        {"case": "a"},
    )


def test_a_packed_nifti_is_a_gzip_file_like_any_other(tmp_path):
    v = volume()
    path = write(tmp_path / "v.nii.gz", v)
    subprocess.run(["gzip", "-t", path], check=True)
    assert gzip.decompress(path.read_bytes()) == write(tmp_path / "v.nii", v).read_bytes()
    assert path.read_bytes()[4:8] == bytes(4)  # no time


@pytest.mark.parametrize("kind", NAMES)
def test_the_same_volume_gives_the_same_bytes(kind, tmp_path):
    one, other = (write(tmp_path / n / NAMES[kind], volume(case="a")) for n in "ab")
    assert content(one) == content(other)


@pytest.mark.parametrize("kind", NAMES)
def test_what_is_written_takes_no_more_than_was_said(kind, tmp_path):
    """Noise of a CT, 30 HU; about 0 HU, where the sign changes, the bits vary most."""
    noise = np.random.default_rng(0).normal(0, 30, (2, 1100, 1040)).astype(np.int16)
    path = write(tmp_path / NAMES[kind], Volume(noise, (1, 1, 1)))
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    on_disk = sum(512 * f.stat().st_blocks for f in files)
    assert on_disk <= raw_bytes(kind, noise.shape) < 1.1 * noise.nbytes


@pytest.mark.parametrize("kind", STREAMS)
def test_slices_of_one_file_come_in_their_order(kind, tmp_path):
    v = volume()
    writer = open_writer(tmp_path / "x", kind, v.shape, v)
    writer.write(0, v.array[0])
    with pytest.raises(ValueError, match="slice 2 is out of order, 1 is next"):
        writer.write(2, v.array[2])


@pytest.mark.parametrize("kind", ["ome-zarr", "dicom"])
def test_slices_of_many_files_come_in_any_order(kind, tmp_path):
    v = volume()
    whole = write(tmp_path / NAMES[kind], v)
    writer = open_writer(tmp_path / "x", kind, v.shape, v, made_of={})
    for z in (3, 0, 4, 1, 2):
        writer.write(z, v.array[z])
    assert content(tmp_path / "x") == content(whole)


@pytest.mark.parametrize("kind", NAMES)
@pytest.mark.parametrize("image", [np.zeros((20, 24), np.float32), np.zeros((24, 20), np.int16)])
def test_other_values_and_sizes_are_not_bent_into_shape(kind, image, tmp_path):
    v = volume()
    with pytest.raises(ValueError, match="not int16"):
        open_writer(tmp_path / "x", kind, v.shape, v).write(0, image)


def test_uneven_slices_have_a_place_in_ome_zarr_alone(tmp_path):
    v = volume(slices=[0, 1, 2, 3, 7])
    write(tmp_path / "v.ome.zarr", v)
    with pytest.raises(UserError, match="not evenly spaced, which nrrd cannot say"):
        write(tmp_path / "v.nrrd", v)


def test_too_large_for_nifti_is_said_before_anything_is_written(tmp_path):
    with pytest.raises(UserError, match="NIfTI holds at most 32767"):
        open_writer(tmp_path / "x", "nifti", (1, 8, 40000), volume())


@pytest.mark.parametrize("kind", NAMES)
def test_an_output_has_its_name_when_it_is_whole_and_the_old_one_until_then(kind, tmp_path):
    old = volume(shape=(3, 20, 24))
    path = write(tmp_path / NAMES[kind], old)
    before = content(path)
    with Partial(path, kind, (5, 20, 24), volume(), {}) as partial:
        for image in volume().array[:4]:
            partial.write(image)
        with pytest.raises(ValueError, match="only 4 of 5 slices"):
            partial.finish()
        assert content(path) == before
        partial.write(volume().array[4])
        partial.finish()
    assert content(path) == content(write(tmp_path / "other" / NAMES[kind], volume()))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([NAMES[kind], "other"])


@pytest.mark.parametrize("kind", ["ome-zarr", "dicom"])
def test_a_folder_of_other_things_is_not_replaced(kind, tmp_path):
    folder = tmp_path / NAMES[kind]
    folder.mkdir()
    (folder / "thesis.doc").write_text("x")
    with pytest.raises(UserError, match="exists and is no earlier output"):
        write(folder, volume())
    assert (folder / "thesis.doc").exists()


KILLED = """
import contextlib, os, shutil, signal, sys
import numpy as np
from pathlib import Path
from microsr.formats.outputs import Partial, read_journal
from microsr.volume.storage import Volume

kind, folder, name = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
array = np.random.default_rng(0).normal(-850, 100, (3, 600, 20)).astype(np.int16)
like = Volume(None, (0.1, 0.1, 1.0), attributes={"case": "a"})
EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}


def run(output, kill_at=None):
    '''Write the volume; at the system call `kill_at` of those that change files the process is killed.'''
    count = 0

    def hook(event, arguments):
        nonlocal count
        if event == "open" and arguments[0] == str(output) + ".partial.json" and arguments[1] not in ("r", "rb"):
            os._exit(77)  # a journal is replaced, so that there is never a half one
        if event in EVENTS and not (event == "open" and arguments[1] in ("r", "rb")):
            count += 1
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    if kill_at is not None:
        sys.addaudithook(hook)
    with Partial(output, kind, array.shape, like, {"a": 1}) as partial:
        done = partial.done
        for image in array[done:]:
            partial.write(image)
        partial.finish()
    return done


def content(path):
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return [(str(f.relative_to(path)), f.read_bytes()) for f in files]


def fork(action):
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            os._exit(action())
        os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


fork(lambda: run(folder / "whole" / name))
whole, continued, kills = content(folder / "whole" / name), set(), 0
while True:
    here = folder / str(kills)
    status = fork(lambda: run(here / name, kills + 1))
    if status != -signal.SIGKILL:
        break
    kills += 1
    journal = read_journal(here / name)
    done = fork(lambda: run(here / name))
    assert done == (journal["done"] if journal else 0), (kills, done, journal)
    assert content(here / name) == whole, kills
    assert [p.name for p in here.iterdir()] == [name], (kills, list(here.iterdir()))
    continued.add(done)
    shutil.rmtree(here)
assert status == 0, status
print(kills, sorted(continued))
"""


@pytest.mark.parametrize("kind", NAMES)
def test_a_run_killed_at_any_moment_goes_on_to_the_same_bytes(kind, tmp_path):
    """Each system call that changes a file is once the moment at which a process is killed (SIGKILL)."""
    found = subprocess.run([sys.executable, "-c", KILLED, kind, tmp_path, NAMES[kind]], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    kills, continued = found.stdout.split(maxsplit=1)
    assert int(kills) > 10 and continued.strip() == "[0, 1, 2, 3]"


@pytest.mark.parametrize("kind", NAMES)
def test_what_a_killed_run_left_half_written_is_written_again(kind, tmp_path):
    v, path = volume(), tmp_path / NAMES[kind]
    partial = Partial(path, kind, v.shape, v, {})
    for image in v.array[:2]:
        partial.write(image)
    partial.close()
    left = tmp_path / f"{path.name}.partial"
    if kind == "ome-zarr":
        (left / "0/c/2/0").mkdir(parents=True)
        (left / "0/c/2/0/0").write_bytes(b"half")
        (left / "0/c/2/0/0.0123.partial").write_bytes(b"half")
    elif kind == "dicom":
        (left / "slice0003.dcm").write_bytes(b"half")
    else:
        left.write_bytes(left.read_bytes() + b"half" * 4000)  # longer than what is left to write
    (tmp_path / f".{path.name}.partial.json").write_text("half")
    write(path, v)
    assert content(path) == content(write(tmp_path / "whole" / path.name, v))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, "whole"])


@pytest.mark.parametrize("kind", NAMES)
def test_after_a_full_disk_the_same_command_goes_on(kind, full_disk, request, monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(outputs, "free_bytes", lambda folder: 10**12)  # as if another program took the room meanwhile
    v = volume(shape=(6, 100, 130))
    files_are_small = request.node.callspec.params["full_disk"] != "tmpfs" and kind not in STREAMS
    with (
        full_disk(20 if files_are_small else 90) as folder,
        pytest.raises(UserError, match="make room, then give the same command again") as error,
    ):
        write(folder / NAMES[kind], v)
    kept = int(str(error.value).split(" of 6 slices are kept")[0].split()[-1])
    journal = read_journal(folder / NAMES[kind])
    assert (journal["done"] if journal else 0) == kept < 6 and not (folder / NAMES[kind]).exists()
    caplog.set_level("INFO")
    with full_disk(1000):
        write(folder / NAMES[kind], v)
    assert (f"continues at slice {kept + 1} of 6" in caplog.text) == (kept > 0)
    assert content(folder / NAMES[kind]) == content(write(tmp_path / NAMES[kind], v))


def test_too_little_room_is_said_before_the_first_slice(monkeypatch, tmp_path):
    monkeypatch.setattr(outputs, "free_bytes", lambda folder: 10**9)
    with pytest.raises(UserError, match=r"needs up to 18.6 GB, 1.0 GB are free in .*; make room"):
        Partial(tmp_path / "v.nii", "nifti", (554, 4096, 4096), volume(), {})
    assert not list(tmp_path.iterdir())


def test_only_the_room_for_what_is_left_is_asked_for(monkeypatch, tmp_path):
    v = volume()
    with Partial(tmp_path / "v.nii", "nifti", v.shape, v, {}) as partial:
        for image in v.array[:3]:
            partial.write(image)
    monkeypatch.setattr(outputs, "free_bytes", lambda folder: 2 * v.array[0].nbytes + 4096)
    write(tmp_path / "v.nii", v)
    with pytest.raises(UserError, match="make room"):
        write(tmp_path / "w.nii", v)


@pytest.mark.parametrize("kind", NAMES)
def test_another_run_starts_afresh_and_says_why(kind, tmp_path, caplog):
    v, path = volume(), tmp_path / NAMES[kind]
    with Partial(path, kind, v.shape, v, {"model": "one", "tile": 3}) as partial:
        partial.write(v.array[0])
    with Partial(path, kind, v.shape, v, {"model": "two", "tile": 3}) as partial:
        assert partial.done == 0
    assert "was begun with another model, its 1 slices cannot be used; starting from the beginning" in caplog.text
    with Partial(path, kind, v.shape, v, {"model": "one", "tile": 3}) as partial:
        assert partial.done == 0  # the first run's slices are gone, and so must be what was noted of them


def test_a_partial_output_that_was_cut_is_not_gone_on_with(tmp_path, caplog):
    v = volume()
    with Partial(tmp_path / "v.nii", "nifti", v.shape, v, {}) as partial:
        partial.write(v.array[0])
        partial.write(v.array[1])
    (tmp_path / "v.nii.partial").write_bytes(b"short")
    whole = write(tmp_path / "v.nii", v)
    assert "is shorter than it was" in caplog.text and np.array_equal(sitk.GetArrayFromImage(read(whole)), v.array)


@pytest.mark.parametrize("kind", NAMES)
def test_memory_does_not_grow_with_the_number_of_slices(kind, tmp_path):
    image = np.random.default_rng(0).normal(-850, 30, (800, 800)).astype(np.int16)  # 1.3 MB
    like = Volume(None, (0.1, 0.1, 1.0))

    def peak(count):
        tracemalloc.start()
        with Partial(tmp_path / f"{count}{NAMES[kind]}", kind, (count, 800, 800), like, {}) as partial:
            for _ in range(count):
                partial.write(image)
            partial.finish()
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(2)
    assert peak(5) < 9 * image.nbytes and peak(30) < 9 * image.nbytes


def test_every_slice_has_a_number_wide_enough(tmp_path):
    like = Volume(None, (1.0, 1.0, 1.0))
    writer = open_writer(tmp_path / "x", "dicom", (10001, 2, 2), like)
    writer.write(0, np.zeros((2, 2), np.int16))
    assert pydicom.dcmread(tmp_path / "x/slice00001.dcm").InstanceNumber == 1


def test_parts_of_a_volume_are_written_apart(tmp_path):
    v = volume(shape=(5, 20, 24))
    for name, block in (("a", (0, 2)), ("b", (2, 5))):
        with Partial(tmp_path / name, "ome-zarr", v.shape, v, {}, block=block) as partial:
            for image in v.array[slice(*block)]:
                partial.write(image)
            partial.finish()
    a, b = (open_volume(tmp_path / name).array for name in "ab")
    assert np.array_equal([*a[:2], *b[2:]], v.array)
    for part, absent in ((a, 2), (b, 0)):
        with pytest.raises(UserError, match=f"its slice {absent} is missing"):
            part[:]
    with pytest.raises(UserError, match="only OME-Zarr can be written in parts"):
        Partial(tmp_path / "v.nii", "nifti", v.shape, v, {}, block=(2, 5))


def test_two_runs_do_not_write_one_output(tmp_path):
    like = Volume(None, (1.0, 1.0, 1.0))
    with Partial(tmp_path / "a.nii", "nifti", (2, 8, 8), like, {}) as first:
        first.write(np.zeros((8, 8), np.int16))
        with pytest.raises(
            UserError, match=rf"a\.nii: is being written by process {os.getpid()} on .*; wait for it, or end it"
        ):
            Partial(tmp_path / "a.nii", "nifti", (2, 8, 8), like, {})
        Partial(tmp_path / "b.nii", "nifti", (2, 8, 8), like, {}).close()
    with Partial(tmp_path / "a.nii", "nifti", (2, 8, 8), like, {}) as again:
        assert again.done == 1
