"""Several draws of a scan: what they say together, each in a volume that says what it is."""

import numpy as np
import pydicom
import pytest
import torch

from microsr import cli
from microsr.formats.outputs import Partial
from microsr.inference.draws import Draws
from microsr.inference.superresolve import superresolve
from microsr.inference.upsamplers import Generator, upsample_slice
from microsr.networks.families import build_g1
from microsr.networks.model_file import save_generator
from microsr.volume.storage import Volume, open_volume, write_volume

HU = np.random.default_rng(1).normal(-700, 200, (3, 18, 20)).round().astype(np.float32)


@pytest.fixture
def model(tmp_path):
    """generator.pt of a posterior sampler with random weights."""

    def make(kind="posterior", slices=1):
        torch.manual_seed(0)
        sampler = kind == "posterior"
        g1 = build_g1("compact", 8, sampler, slices)
        for tail in (g1.tail, g1.drawn_tail) if sampler else (g1.tail,):
            tail.weight.data *= 10  # so that it matters beside the interpolated image, as when it is trained
        facts = {
            "kind": kind,
            "network": "compact",
            "sampler": sampler,
            "window_hu": [-1000.0, 400.0],
            "seed": 3,
            "steps": 1,
        }
        facts |= {"slices": slices, "slice_mm": [1.0, 1.0]} if slices > 1 else {}
        facts |= {"provenance": {}, "clinical_spacing_mm": None, "micro_spacing_mm": None}
        save_generator(tmp_path / f"{kind}.pt", g1, facts)
        return tmp_path / f"{kind}.pt"

    return make


@pytest.fixture
def scan(tmp_path):
    """A scan of three slices."""
    write_volume(tmp_path / "scan.ome.zarr", Volume(HU, (0.6, 0.6, 1.0)))
    return tmp_path / "scan.ome.zarr"


def test_a_summary_is_that_of_all_draws():
    draws = torch.from_numpy(np.random.default_rng(0).normal(-600, 300, (7, 24, 30)).astype(np.float32))
    found = Draws(7, keep=2).summarise(iter(draws))
    values = draws.double().numpy()
    assert list(found) == ["mean", "sd", "solid", "draw0", "draw1"]
    assert all(image.dtype == np.int16 for image in found.values())
    assert np.abs(found["mean"] - values.mean(0)).max() < 0.51
    assert np.abs(found["sd"] - values.std(0, ddof=1)).max() < 0.51
    assert np.abs(found["solid"] - 100 * (values > -300).mean(0)).max() < 0.51
    assert np.abs(found["draw1"] - values[1]).max() < 0.51


def test_a_small_spread_is_not_lost_beside_a_large_mean():
    draws = torch.full((50, 8, 8), 3000.0) + torch.linspace(-5, 5, 50)[:, None, None]
    assert Draws(50).summarise(iter(draws))["sd"] == pytest.approx(np.linspace(-5, 5, 50).std(ddof=1), abs=0.51)


def test_each_volume_says_what_it_is(model, scan, tmp_path):
    upsampler, output = Generator(model()), tmp_path / "sr.ome.zarr"
    superresolve(scan, output, upsampler, draws=Draws(5, keep=2))
    names = {"mean": "sr"} | {what: f"sr_{what}" for what in ("sd", "solid", "draw0", "draw1")}
    volumes = {what: open_volume(tmp_path / f"{name}.ome.zarr") for what, name in names.items()}
    for what, volume in volumes.items():
        assert volume.attributes["holds"] == what and volume.attributes["draws"] == 5
        assert volume.shape == (3, 144, 160) and volume.unit == ("%" if what == "solid" else "HU")
        assert (tmp_path / f"{names[what]}.run.json").is_file()
    images = np.stack([[upsample_slice(HU[z], z, upsampler, draw=n) for z in range(3)] for n in range(5)])
    assert np.abs(volumes["mean"].array[:] - images.mean(0)).max() <= 0.6
    assert np.abs(volumes["sd"].array[:] - images.std(0, ddof=1)).max() <= 0.6
    assert volumes["sd"].array[:].min() >= 0 and volumes["sd"].array[:].mean() > 10


def test_a_kept_draw_is_what_its_number_draws_alone(model, scan, tmp_path):
    upsampler = Generator(model())
    superresolve(scan, tmp_path / "sr.ome.zarr", upsampler, draws=Draws(3, keep=3))
    superresolve(scan, tmp_path / "alone.ome.zarr", upsampler, draw=2)
    kept, alone = (open_volume(tmp_path / f"{name}.ome.zarr").array[:] for name in ("sr_draw2", "alone"))
    assert np.array_equal(kept, alone)


def test_draws_may_begin_with_a_later_number(model, scan, tmp_path):
    """Of a second scan of the same lung, which is to have random planes of its own."""
    words = ["superresolve", str(scan), "--model", str(model()), "--output"]
    cli.main([*words, f"{tmp_path}/sr.ome.zarr", "--draws", "2", "--draw", "3", "--keep", "1"])
    cli.main([*words, f"{tmp_path}/alone.ome.zarr", "--draw", "3"])
    kept, alone = (open_volume(tmp_path / f"{name}.ome.zarr") for name in ("sr_draw3", "alone"))
    assert np.array_equal(kept.array[:], alone.array[:]) and kept.attributes["first_draw"] == 3


def test_what_is_not_random_is_computed_once(model, scan, tmp_path, monkeypatch):
    upsampler, seen, shared, finished = Generator(model()), [], [], []
    g1, prepare = upsampler._g1, upsampler.prepare
    share, finish = g1.share, g1.finish
    monkeypatch.setattr(upsampler, "prepare", lambda *given: seen.append(1) or prepare(*given))
    monkeypatch.setattr(g1, "share", lambda *given: shared.append(1) or share(*given))
    monkeypatch.setattr(g1, "finish", lambda *given: finished.append(1) or finish(*given))
    superresolve(scan, tmp_path / "sr.ome.zarr", upsampler, tile=10, draws=Draws(4))
    assert len(seen) == 3, "once a slice"
    assert len(shared) == 3 * 4, "once a tile"
    assert len(finished) == 3 * 4 * 4


def test_draws_in_tiles_of_a_region_are_those_of_the_whole(model, scan, tmp_path):
    upsampler = Generator(model())
    superresolve(scan, tmp_path / "whole.ome.zarr", upsampler, draws=Draws(3, keep=2))
    superresolve(scan, tmp_path / "part.ome.zarr", upsampler, tile=5, region="3:15,7:20", draws=Draws(3, keep=2))
    for what in ("", "_sd", "_draw1"):
        whole, part = (open_volume(tmp_path / f"{name}{what}.ome.zarr").array[:] for name in ("whole", "part"))
        assert np.abs(whole[:, 24:120, 56:160].astype(int) - part).max() <= 1


@pytest.mark.parametrize("size", [(18, 20), (7, 9)])
def test_the_noise_of_a_part_of_a_slice_is_cut_from_that_of_all(model, size):
    upsampler = Generator(model())
    whole = upsampler.draw(2, size, 5)
    for rows, columns in (((2, 6), (3, 9)), ((0, size[0]), (0, 4)), ((1, 7), (0, size[1]))):
        part = upsampler.draw(2, size, 5, (slice(*rows), slice(*columns)))
        for scale, plane, own in zip((2, 4, 8), whole, part, strict=True):
            cut = plane[..., scale * rows[0] : scale * rows[1], scale * columns[0] : scale * columns[1]]
            assert torch.equal(own, cut)


def test_a_run_that_was_stopped_goes_on_where_each_volume_was(model, scan, tmp_path, monkeypatch):
    upsampler, draws = Generator(model()), Draws(3, keep=1)
    superresolve(scan, tmp_path / "whole.ome.zarr", upsampler, draws=draws)
    write, written = Partial.write, []

    def stops(partial, image):
        if len(written) == 6:  # in the middle of the second slice's volumes
            raise KeyboardInterrupt
        written.append(partial.path.name)
        write(partial, image)

    monkeypatch.setattr(Partial, "write", stops)
    with pytest.raises(KeyboardInterrupt):
        superresolve(scan, tmp_path / "cut.ome.zarr", upsampler, draws=draws)
    assert not (tmp_path / "cut.ome.zarr").exists()
    monkeypatch.setattr(Partial, "write", lambda *given: written.append(given) or write(*given))
    superresolve(scan, tmp_path / "cut.ome.zarr", upsampler, draws=draws)
    assert len(written) == 12, "nothing is written twice"
    for what in ("", "_sd", "_solid", "_draw0"):
        whole, cut = (open_volume(tmp_path / f"{name}{what}.ome.zarr").array[:] for name in ("whole", "cut"))
        assert np.array_equal(whole, cut)


def test_each_dicom_series_says_what_it_is(model, scan, tmp_path):
    superresolve(scan, tmp_path / "sr", Generator(model()), slices=[1], draws=Draws(2))
    found = {}
    for what in ("", "_sd", "_solid"):
        (file,) = (tmp_path / f"sr{what}").iterdir()
        header = pydicom.dcmread(file)
        found[what] = header.SeriesDescription
        assert header.RescaleType == ("US" if what == "_solid" else "HU")
    assert list(found.values()) == [f"{name} of 2 draws, not for diagnosis" for name in ("Mean", "SD", "P(solid)")]


@pytest.mark.parametrize("words", ["--draws 1", "--draws 4 --keep 5", "--keep 2"])
def test_numbers_of_draws_that_do_not_go_together_are_refused(words, model, scan, tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.main(["superresolve", str(scan), "--model", str(model()), "--output", f"{tmp_path}/sr", *words.split()])
    assert "do not go together" in capsys.readouterr().err


def test_draws_of_what_is_no_sampler_are_refused(model, scan, tmp_path, capsys):
    for way, kind in (("--model", model("regression")), ("--upsampler", "bicubic")):
        with pytest.raises(SystemExit):
            cli.main(["superresolve", str(scan), way, str(kind), "--output", f"{tmp_path}/sr", "--draws", "4"])
        assert "whose draws do not say what the scan leaves open" in capsys.readouterr().err


def test_the_command_writes_all_volumes(model, scan, tmp_path):
    words = ["superresolve", str(scan), "--model", str(model()), "--draws", "2", "--keep", "1"]
    cli.main([*words, "--output", f"{tmp_path}/sr.nii", "--region", "2:12,3:14", "--slices", "0:2"])
    names = ["sr.nii", "sr_draw0.nii", "sr_sd.nii", "sr_solid.nii"]
    assert sorted(path.name for path in tmp_path.glob("sr*.nii")) == names


def test_draws_of_neighbouring_slices_hang_on_the_slice_and_not_on_what_else_is_made(model, scan, tmp_path):
    way = Generator(model(slices=3))
    superresolve(scan, tmp_path / "all.ome.zarr", way, tile=8, draws=Draws(3, keep=3))
    superresolve(scan, tmp_path / "slab.ome.zarr", way, "1:2", draws=Draws(2, keep=1, first=1))
    kept = open_volume(tmp_path / "all_draw1.ome.zarr").array[:]
    assert np.array_equal(open_volume(tmp_path / "slab_draw1.ome.zarr").array[0], kept[1])
    assert kept[2] == pytest.approx(upsample_slice(HU[[1, 2, 2]], 2, way, draw=1), abs=0.6)
    other = HU.copy()
    other[2] += 200
    write_volume(tmp_path / "other.ome.zarr", Volume(other, (0.6, 0.6, 1.0)))
    superresolve(tmp_path / "other.ome.zarr", tmp_path / "changed.ome.zarr", way, ":2", draws=Draws(3, keep=2))
    changed = open_volume(tmp_path / "changed_draw1.ome.zarr").array[:]
    assert np.array_equal(changed[0], kept[0]) and not np.array_equal(changed[1], kept[1])
