"""Super-resolution of a scan: in place, in any format, in parts, and going on after a kill or a full disk."""

import json
import multiprocessing
import os
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from microsr import cli
from microsr.core.errors import UserError
from microsr.core.provenance import run_file
from microsr.formats.outputs import Partial
from microsr.inference.gather import gather
from microsr.inference.superresolve import choose_slices, open_input, parse_region, superresolve
from microsr.inference.upsamplers import Bicubic, Generator, upsample_slice
from microsr.volume.slices import Slices
from microsr.volume.storage import Volume, magnified_geometry, open_volume, write_volume


def lung(shape=(6, 20, 24), seed=0):
    return np.random.default_rng(seed).normal(-800, 150, shape).astype(np.int16)


@pytest.fixture
def scan(tmp_path):
    """A scan as NIfTI file."""
    image = sitk.GetImageFromArray(lung())
    image.SetSpacing((0.7, 0.7, 1.5))
    path = tmp_path / "scan.nii"
    sitk.WriteImage(image, str(path))
    return path


def content(folder):
    """Every file of a folder, or the file."""
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_the_super_resolved_volume_overlays_its_input(tmp_path):
    # An oblique, left-handed direction: columns, rows and slices run along rotated axes, slices backwards.
    c, s = np.cos(0.3), np.sin(0.3)
    direction = (c, -s, 0.0, s, c, 0.0, 0.0, 0.0, -1.0)
    array = np.full((6, 20, 24), -900, np.int16)
    array[3, 8:12, 10:14] = 0
    volume = Volume(array, (0.7, 0.7, 1.5), (-100.0, 50.0, 30.0), direction, attributes={"case": "x"})
    write_volume(tmp_path / "clinical.ome.zarr", volume)
    superresolve(tmp_path / "clinical.ome.zarr", tmp_path / "sr.ome.zarr", Bicubic(), [2, 3, 4], 16)
    sr = open_volume(tmp_path / "sr.ome.zarr")
    assert sr.shape == (3, 160, 192)
    assert sr.spacing == pytest.approx((0.0875, 0.0875, 1.5))
    assert sr.attributes["slices"] == [2, 3, 4]
    superresolve(tmp_path / "clinical.ome.zarr", tmp_path / "part.ome.zarr", Bicubic(), "2:5", 16, "5:15,7:20")
    part = open_volume(tmp_path / "part.ome.zarr")
    assert part.shape == (3, 80, 104)
    assert np.array_equal(part.array[:], sr.array[:, 40:120, 56:160])

    def centroid(v, threshold):
        """Of the bright square, in patient coordinates, computed by SimpleITK from the geometry alone."""
        image = sitk.GetImageFromArray(np.asarray(v.array[:]))
        image.SetSpacing(v.spacing), image.SetOrigin(v.origin), image.SetDirection(v.direction)
        shape = sitk.LabelShapeStatisticsImageFilter()
        shape.Execute(image > threshold)
        return np.array(shape.GetCentroid(1))

    assert centroid(sr, -450) == pytest.approx(centroid(volume, -450), abs=0.02)
    assert centroid(part, -450) == pytest.approx(centroid(volume, -450), abs=0.02)


@pytest.mark.parametrize(
    ("slices", "expected"),
    [("all", [0, 1, 2, 3]), ("1:3", [1, 2]), ("2:", [2, 3]), (":1", [0]), ([3, 1], [1, 3])],
)
def test_slices_are_chosen(slices, expected):
    assert choose_slices(slices, 4, Path("scan")) == expected


@pytest.mark.parametrize("slices", [[1, 4], "2:5"])
def test_a_missing_slice_is_named(slices, tmp_path):
    write_volume(tmp_path / "c.ome.zarr", Volume(np.zeros((4, 16, 16), np.int16), (1, 1, 1)))
    with pytest.raises(UserError, match=r"superresolve.slices: 4 does not exist.*0 to 3"):
        superresolve(tmp_path / "c.ome.zarr", tmp_path / "o.ome.zarr", Bicubic(), slices, 16)


@pytest.mark.parametrize(
    ("region", "said"),
    [("3:5", "malformed"), ("a:b,1:2", "malformed"), ("1:2,3:4,5:6", "malformed"), ("5:5,:", "fit"), (":21,:", "fit")],
)
def test_a_region_that_does_not_exist_is_refused(region, said):
    with pytest.raises(UserError, match=said):
        parse_region(region, (20, 24), Path("scan"))


@pytest.mark.parametrize(("pixel", "warns"), [(0.6, False), (0.9, True)])
def test_pixels_of_another_size_than_the_trained_ones_are_warned_of(pixel, warns, tmp_path, caplog, trained_model):
    write_volume(tmp_path / "c.ome.zarr", Volume(np.zeros((1, 16, 16), np.int16), (pixel, pixel, 1)))
    way = Generator(trained_model("compact", 0.625), "cpu")
    superresolve(tmp_path / "c.ome.zarr", tmp_path / "o.ome.zarr", way, "all", 16)
    assert ("the model was trained on 0.625 mm" in caplog.text) == warns


@pytest.mark.parametrize("name", ["sr.nii", "sr.nii.gz", "sr.nrrd", "sr.mha"])
def test_a_scan_goes_straight_into_the_format_of_the_ending(name, scan, tmp_path, trained_model):
    way = Generator(trained_model("compact"), "cpu", "float32")
    superresolve(scan, tmp_path / name, way, "1:4")
    superresolve(scan, tmp_path / "sr.ome.zarr", way, "1:4")
    image, volume = sitk.ReadImage(str(tmp_path / name)), open_volume(tmp_path / "sr.ome.zarr")
    assert np.array_equal(sitk.GetArrayFromImage(image), volume.array[:])
    assert image.GetSpacing() == pytest.approx(volume.spacing)
    assert image.GetOrigin() == pytest.approx(volume.origin)


def test_slices_are_read_one_by_one(tmp_path):
    class Slices:
        """Gives single slices and nothing more."""

        shape, dtype = (5, 16, 16), np.dtype(np.int16)

        def __getitem__(self, index):
            assert isinstance(index, int)
            return np.full(self.shape[1:], -100 * index, np.int16)

        def __array__(self, *_):
            raise AssertionError("the whole volume was asked for")

    write_volume(tmp_path / "c.ome.zarr", Volume(np.zeros((5, 16, 16), np.int16), (1, 1, 1)))
    volume = replace(open_volume(tmp_path / "c.ome.zarr"), array=Slices())
    superresolve(tmp_path / "c.ome.zarr", tmp_path / "o.ome.zarr", Bicubic(), volume=volume)
    assert open_volume(tmp_path / "o.ome.zarr").array[:, 0, 0].tolist() == [0, -100, -200, -300, -400]


@pytest.mark.parametrize("count", [1, 3, 8])
def test_parts_of_several_jobs_are_the_bytes_of_one(count, scan, tmp_path, trained_model):
    model = str(trained_model("compact"))

    def run(output, *flags):
        cli.main(["superresolve", str(scan), "--model", model, "--output", str(output), "--tile", "16", *flags])

    run(tmp_path / "one.ome.zarr")
    parts = [tmp_path / f"part{k}.ome.zarr" for k in range(1, count + 1)]
    for k, part in enumerate(parts, 1):
        run(part, "--parts", str(count), "--part", str(k))
    if count > 1:
        with pytest.raises(UserError, match=f"needs parts 1 to {count}, each once"):
            gather(parts[1:], tmp_path / "gathered.ome.zarr")
        gather(parts[::-1], tmp_path / "gathered.ome.zarr")
        assert content(tmp_path / "gathered.ome.zarr") == content(tmp_path / "one.ome.zarr")
        whole, one = (
            json.loads(run_file(tmp_path / f"{n}.ome.zarr").read_text(encoding="utf-8")) for n in ("gathered", "one")
        )
        assert (whole["settings"], whole["inputs"]) == (one["settings"], one["inputs"])
    else:
        assert content(parts[0]) == content(tmp_path / "one.ome.zarr")


def test_a_further_draw_has_other_noise_and_says_its_number(scan, tmp_path, trained_model):
    def run(name, *flags):
        output = tmp_path / name
        cli.main(["superresolve", str(scan), "--model", str(trained_model("compact")), "--output", str(output), *flags])
        return open_volume(output)

    first, zeroth, other = run("a.ome.zarr"), run("b.ome.zarr", "--draw", "0"), run("c.ome.zarr", "--draw", "1")
    assert np.array_equal(first.array[:], zeroth.array[:])
    assert not np.array_equal(first.array[:], other.array[:])
    assert [volume.attributes["draw"] for volume in (first, zeroth, other)] == [0, 0, 1]


def test_slices_of_a_known_volume_stand_in_a_method_s_place(scan, tmp_path):
    truth = np.random.default_rng(1).integers(-1000, 0, (6, 160, 192)).astype(np.int16)
    write_volume(tmp_path / "truth.ome.zarr", Volume(truth, **magnified_geometry(open_input(scan), 8)))
    words = ["--known", str(tmp_path / "truth.ome.zarr"), "--slices", "[1, 4]"]
    cli.main(["superresolve", str(scan), *words, "--output", str(tmp_path / "sr.ome.zarr")])
    sr = open_volume(tmp_path / "sr.ome.zarr")
    assert np.array_equal(sr.array[:], truth[[1, 4]]) and sr.attributes["slices"] == [1, 4]
    record = json.loads(run_file(tmp_path / "sr.ome.zarr").read_text(encoding="utf-8"))
    assert str(tmp_path / "truth.ome.zarr") in record["inputs"] and record["settings"]["upsampler"] == "known"


def test_a_draw_that_does_not_exist_is_refused(scan, tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.main(
            ["superresolve", str(scan), "--upsampler", "bicubic", "--output", str(tmp_path / "a.mha"), "--draw=-1"]
        )
    assert "--draw -1 does not exist: draws are numbered from 0 on" in capsys.readouterr().err


def test_parts_made_in_different_ways_do_not_fit_together(scan, tmp_path, trained_model):
    parts = []
    for k, slices in ((1, "all"), (2, "1:5")):
        parts.append(tmp_path / f"part{k}.ome.zarr")
        flags = ["--output", str(parts[-1]), "--parts", "2", "--part", str(k), "--slices", slices]
        cli.main(["superresolve", str(scan), "--upsampler", "bicubic", *flags])
    with pytest.raises(UserError, match="differ in their settings"):
        gather(parts, tmp_path / "gathered.ome.zarr")
    with pytest.raises(UserError, match="does not say which part it is"):
        gather([scan], tmp_path / "gathered.ome.zarr")


def test_a_part_that_does_not_exist_is_refused(scan, tmp_path, capsys):
    flags = ["--upsampler", "bicubic", "--output", str(tmp_path / "sr.ome.zarr"), "--parts", "2", "--part", "3"]
    with pytest.raises(SystemExit):
        cli.main(["superresolve", str(scan), *flags])
    assert "--part 3 does not exist: there are 2 parts" in capsys.readouterr().err


def die_in_slice(words, number, half):
    """A run that is killed in a slice, counted from 0: before it is written, or when it is in the file but not in the
    journal.
    """
    write, note = Partial.write, Partial._note

    def die(partial):
        if partial.done == number:
            os.kill(os.getpid(), signal.SIGKILL)

    if half:
        Partial._note = lambda partial, done: (die(partial), note(partial, done))
    else:
        Partial.write = lambda partial, image: (die(partial), write(partial, image))
    cli.main(words)


@pytest.mark.parametrize("name", ["sr.ome.zarr", "sr.nii.gz"])
def test_a_killed_run_goes_on_to_the_same_bytes(name, tmp_path, trained_model, capsys):
    image = sitk.GetImageFromArray(lung((12, 24, 24)))
    image.SetSpacing((0.7, 0.7, 1.5))
    sitk.WriteImage(image, str(tmp_path / "scan.nii"))
    model, flags = trained_model("compact"), ["--threads", "1", "--tile", "16"]
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["microsr.inference.superresolve"])

    def words(output):
        return list(map(str, ["superresolve", tmp_path / "scan.nii", "--model", model, "--output", output, *flags]))

    straight, killed = tmp_path / "straight", tmp_path / "killed"
    cli.main(words(straight / name))
    for number, half in ((1, False), (5, True), (9, False)):
        process = processes.Process(target=die_in_slice, args=(words(killed / name), number, half))
        process.start()
        process.join()
        assert process.exitcode == -signal.SIGKILL and not (killed / name).exists()
        journal = json.loads((killed / f"{name}.partial.json").read_text(encoding="utf-8"))
        assert journal["done"] == number
    capsys.readouterr()
    cli.main(words(killed / name))
    assert "continues at slice 10 of 12" in capsys.readouterr().err
    if name.endswith(".gz"):
        assert (killed / name).read_bytes() == (straight / name).read_bytes()
    else:
        assert content(killed / name) == content(straight / name)
    assert sorted(p.name for p in killed.iterdir()) == sorted([name, run_file(killed / name).name])


def test_a_full_disk_keeps_the_slices_and_the_same_call_goes_on(tmp_path, full_disk, trained_model, monkeypatch):
    write_volume(tmp_path / "c.ome.zarr", Volume(lung((8, 32, 32)), (1, 1, 1)))
    way = Generator(trained_model("compact"), "cpu", "float32")
    monkeypatch.setattr("microsr.formats.outputs.free_bytes", lambda folder: 1 << 40)
    superresolve(tmp_path / "c.ome.zarr", tmp_path / "whole.nii", way)
    with full_disk(600) as folder, pytest.raises(UserError, match=r"disk is full.* 4 of 8 slices are kept"):
        superresolve(tmp_path / "c.ome.zarr", folder / "sr.nii", way)
    with full_disk(2000) as folder:
        superresolve(tmp_path / "c.ome.zarr", folder / "sr.nii", way)
        assert (folder / "sr.nii").read_bytes() == (tmp_path / "whole.nii").read_bytes()


def test_a_disk_without_room_is_said_before_the_first_slice(tmp_path, monkeypatch):
    write_volume(tmp_path / "c.ome.zarr", Volume(lung((8, 32, 32)), (1, 1, 1)))
    monkeypatch.setattr("microsr.formats.outputs.free_bytes", lambda folder: 1000)
    monkeypatch.setattr(Bicubic, "prepare", None)  # would fail
    with pytest.raises(UserError, match=r"sr.mha: needs up to 1.1 MB, 0.0 MB are free"):
        superresolve(tmp_path / "c.ome.zarr", tmp_path / "sr.mha", Bicubic())


NEIGHBOURS = {"slices": 3, "slice_mm": (1.5, 1.5)}


def test_a_model_of_neighbours_sees_those_outside_what_is_asked_for(scan, tmp_path, trained_model):
    model, hu = trained_model("compact", **NEIGHBOURS), np.asarray(open_input(scan).array[:])
    words = ["--model", str(model), "--device", "cpu", "--precision", "float32"]

    def run(name, *flags):
        cli.main(["superresolve", str(scan), *words, "--output", str(tmp_path / name), *flags])
        return open_volume(tmp_path / name).array[:]

    way = Generator(model, "cpu", "float32")
    ends = {0: [0, 0, 1], 3: [2, 3, 4], 5: [4, 5, 5]}
    whole = run("all.ome.zarr")
    for index, seen in ends.items():
        assert whole[index] == pytest.approx(upsample_slice(hu[seen].astype(np.float32), index, way), abs=0.6)
    assert np.array_equal(run("slab.ome.zarr", "--slices", "2:4"), whole[2:4])
    assert np.array_equal(run("some.ome.zarr", "--slices", "[0, 5]"), whole[[0, 5]])
    write_volume(tmp_path / "scan.ome.zarr", Volume(hu, (0.7, 0.7, 1.5)))
    superresolve(tmp_path / "scan.ome.zarr", tmp_path / "imported.ome.zarr", way, "4:")
    assert np.array_equal(open_volume(tmp_path / "imported.ome.zarr").array[:], whole[4:])
    parts = [tmp_path / f"part{part}.ome.zarr" for part in (1, 2)]
    for number, part in enumerate(parts, 1):
        cli.main(["superresolve", str(scan), *words, "--output", str(part), "--parts", "2", "--part", str(number)])
    gather(parts, tmp_path / "gathered.ome.zarr")
    assert np.array_equal(open_volume(tmp_path / "gathered.ome.zarr").array[:], whole)


def test_neighbours_are_read_once_and_few_are_held(tmp_path, trained_model):
    read = []

    def load(z):
        read.append(z)
        return lung()[z]

    volume = Volume(Slices(load, (6, 20, 24), np.int16), (0.7, 0.7, 1.5), attributes={"source": {}})
    (tmp_path / "scan").touch()
    way = Generator(trained_model("compact", **NEIGHBOURS), "cpu", "float32")
    superresolve(tmp_path / "scan", tmp_path / "sr.ome.zarr", way, "1:5", volume=volume)
    assert read == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("shape", "apart", "facts", "said"),
    [
        ((1, 20, 24), 1.5, {}, "has slices without neighbours, and the model sees 3 neighbouring slices; give a model"),
        ((4, 20, 24), 1.5, {"independent_slices": True}, "has slices without neighbours"),
        (
            (4, 20, 24),
            1.2,
            {},
            r"has slices 1.2 mm apart, and .* trained with 1.5 to 2 mm; train one with pairs.slice_",
        ),
        ((4, 20, 24), 2.4, {}, r"has slices 2.4 mm apart"),
    ],
)
def test_a_scan_without_the_neighbours_of_the_training_is_refused(shape, apart, facts, said, tmp_path, trained_model):
    way = Generator(trained_model("compact", slices=3, slice_mm=(1.5, 2.0)), "cpu")
    write_volume(tmp_path / "c.ome.zarr", Volume(lung(shape), (0.7, 0.7, apart), attributes=facts))
    with pytest.raises(UserError, match=said) as error:
        superresolve(tmp_path / "c.ome.zarr", tmp_path / "o.ome.zarr", way)
    assert "\n" not in str(error.value) and not (tmp_path / "o.ome.zarr").exists()
    superresolve(tmp_path / "c.ome.zarr", tmp_path / "o.ome.zarr", Generator(trained_model("compact"), "cpu"), ":1")
    write_volume(tmp_path / "near.ome.zarr", Volume(lung((2, 20, 24)), (0.7, 0.7, 2.2)))
    superresolve(tmp_path / "near.ome.zarr", tmp_path / "n.ome.zarr", way, ":1")
