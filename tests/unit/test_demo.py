"""`microsr demo`: the model and the slab that the package holds, and the picture that they make."""

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
import yaml
from PIL import Image
from snakemake.utils import update_config

from microsr import config, demo
from microsr.cli import main
from microsr.figures.style import SPREAD_HU
from microsr.inference.upsamplers import Generator, Magnifier
from microsr.networks.layers import bicubic_upsample
from microsr.networks.safetensors_file import load_model

ROOT = Path(__file__).parents[2]
NAMES = ["Clinical CT", "Bicubic", "One draw", "Mean of 16", "SD of 16", "Truth"]
LIMIT = 2_000_000
"""Bytes that a file of the package may have."""


@pytest.fixture(scope="module")
def panels():
    return demo.superresolve_slab()


@pytest.fixture(scope="module")
def images(panels):
    """Each panel's slice, by its name."""
    return {panel.name: np.asarray(panel.volume.array[panel.index], float) for panel in panels}


@pytest.fixture(scope="module")
def slab():
    return sitk.ReadImage(demo.SLAB)


@pytest.fixture(scope="module")
def facts():
    return load_model(demo.MODEL)[1]


@pytest.fixture
def quick(panels, monkeypatch):
    """The command without the seconds of the network."""
    monkeypatch.setattr(demo, "superresolve_slab", lambda: panels)


def psnr(image, truth, lung):
    return 10 * np.log10(1400**2 / np.mean((image - truth)[lung] ** 2))


def test_the_panels_are_the_scan_what_is_made_of_it_and_the_truth(panels, images, slab):
    assert list(images) == NAMES
    hu = sitk.GetArrayFromImage(slab)[1]
    assert np.array_equal(images["Clinical CT"], hu)
    by_itself = bicubic_upsample(torch.from_numpy(hu[None, None].astype(np.float32)), 8)[0, 0]
    assert np.allclose(images["Bicubic"], by_itself, atol=0.01)
    model = Generator(demo.MODEL, "cpu", "float32")
    with Magnifier(model) as magnify:
        first = magnify(hu, model.draw(1, hu.shape, 0)).numpy()
    assert np.abs(images["One draw"] - first).max() <= 1
    assert np.array_equal(images["Truth"], sitk.GetArrayFromImage(sitk.ReadImage(demo.TRUTH))[0])
    assert [panel.is_spread for panel in panels] == [name.startswith("SD") for name in NAMES]


def test_the_slab_and_the_truth_are_of_the_same_place(panels, slab):
    truth = sitk.ReadImage(demo.TRUTH)
    assert truth.TransformContinuousIndexToPhysicalPoint((-0.5, -0.5, 0)) == pytest.approx(
        slab.TransformContinuousIndexToPhysicalPoint((-0.5, -0.5, 1)), abs=1e-3
    )
    assert truth.GetSize()[:2] == tuple(8 * n for n in slab.GetSize()[:2])
    pooled = sitk.GetArrayFromImage(truth)[0].reshape(96, 8, 96, 8).mean((1, 3))
    assert np.corrcoef(pooled.ravel(), sitk.GetArrayFromImage(slab)[1].ravel())[0, 1] > 0.9


def test_what_the_model_draws_is_worth_showing(images):
    """Better than interpolation in the mean; a draw departs from it as far as the SD says, and the truth as well."""
    truth = images["Truth"]
    lung = images["Bicubic"] < -400
    mean, draw, sd = (images[name][lung] for name in ("Mean of 16", "One draw", "SD of 16"))
    assert psnr(images["Mean of 16"], truth, lung) > psnr(images["Bicubic"], truth, lung) + 0.3
    spread = np.sqrt(np.mean(sd**2))
    assert np.sqrt(np.mean((draw - mean) ** 2)) == pytest.approx(spread, rel=0.1)
    assert 0.7 < spread / np.sqrt(np.mean((truth[lung] - mean) ** 2)) < 1.3


def test_the_figure_shows_them_side_by_side_with_scales(panels):
    figure = demo.draw_demo(panels)
    shown = [axes for axes in figure.axes if axes.get_label() not in ("grey scale", "colour scale")]
    assert len(shown) == 3 * len(NAMES), "the lung and two insets"
    assert [axes.get_title(loc="left").partition(") ")[2] for axes in shown[:6]] == NAMES
    limits = [axes.images[0].get_clim() for axes in shown]
    assert limits == 3 * [*4 * [(-1000, 200)], (0, SPREAD_HU), (-1000, 200)]
    for row in (0, 6, 12):
        assert [line.get_label() for line in shown[row].lines] == ["scale bar"]
    scales = [axes for axes in figure.axes if axes not in shown]
    assert sorted(axes.get_title() for axes in scales) == ["HU", "SD (HU)"]
    text = " ".join(" ".join(words.get_text() for words in figure.texts).split())
    assert "not for diagnosis" in text and "simulated lung" in text


def test_the_command_writes_one_picture_and_says_where(quick, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    main(["demo"])
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("demo: microsr-demo.png is written: ")
    assert [path.name for path in tmp_path.iterdir()] == ["microsr-demo.png"]
    first = Path("microsr-demo.png").read_bytes()
    with Image.open("microsr-demo.png") as picture:
        assert picture.format == "PNG" and picture.width == 2148
        assert "not for diagnosis" in picture.info["Description"]
    main(["demo"])
    assert Path("microsr-demo.png").read_bytes() == first, "its own picture is replaced, by the same one"


def test_the_shipped_files_are_small():
    files = [path for path in (ROOT / "src/microsr/data").rglob("*") if path.is_file()]
    assert {demo.SLAB, demo.TRUTH, demo.MODEL} <= set(files)
    assert not [path for path in files if path.stat().st_size > LIMIT]


def test_the_model_is_of_the_experiment_that_is_said_to_make_it(facts):
    """experiments/shipped.yaml: its kind, network, seed and steps; other lungs than the slab's."""
    whole = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    update_config(whole, yaml.safe_load((ROOT / "experiments/shipped.yaml").read_text(encoding="utf-8")))
    experiment = config.load(whole)
    settings = experiment.train.model_dump() | experiment.methods["posterior"].train
    pairs = settings["epochs"] * settings["patches_per_case"] * experiment.simulate.training_cases
    found = {key: facts[key] for key in ("kind", "network", "seed", "steps")}
    assert found == {
        "kind": "posterior", "network": "compact", "seed": experiment.seed, "steps": pairs // settings["batch_size"],
    }  # fmt: skip
    lungs = {name.partition("/")[0] for name, _ in facts["provenance"]["inputs"]}
    assert lungs == {"train1", "train2", "train3", "train4"}
