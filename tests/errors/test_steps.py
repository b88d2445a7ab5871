"""Messages of steps that no other test provokes."""

import json
import types

import numpy as np
import pandas as pd
import pytest
import SimpleITK as sitk
import zarr
from PIL import Image

from microsr import config
from microsr.config import Calibration, Compute, CycleGANMethod, Figures, Inset, MicroVolume, Train, sheet
from microsr.core.errors import UserError
from microsr.evaluation.protocols import distribution
from microsr.figures import style
from microsr.figures.charts.domain import make_domain
from microsr.figures.charts.metrics import make_metrics
from microsr.figures.pictures import comparison, tiling
from microsr.figures.pictures.hallucination import make_hallucination
from microsr.inference import superresolve
from microsr.networks import devices
from microsr.preprocessing import calibration, patch_files, positions, volumes
from microsr.preprocessing.regions import find
from microsr.report import figures, panels, report, viewer
from microsr.training import distributed, train
from microsr.training.methods.method import Setup
from microsr.volume.storage import Volume, open_mask, open_volume, write_volume


def volume(path, shape=(2, 16, 16), unit="HU", spacing=(0.6, 0.6, 1.0), **attributes):
    """A volume of zeros in the working format."""
    write_volume(path, Volume(np.zeros(shape, np.int16), spacing, unit=unit, attributes=attributes))
    return path


def test_a_gpu_is_asked_for_where_there_is_none(monkeypatch):
    monkeypatch.setattr(devices.torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=r"compute.device is 'cuda', but no GPU is available"):
        devices.choose_device("cuda")


def test_more_gpus_are_asked_for_than_there_are(monkeypatch):
    monkeypatch.setattr(distributed.torch.cuda, "device_count", lambda: 1)
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="more GPUs than the 1 of this machine"), distributed.join("cuda"):
        pass


def test_a_range_without_slices_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"superresolve.slices: 3:3 holds no slice"):
        superresolve.choose_slices("3:3", 8, tmp_path)


def test_patches_that_are_no_numbers_are_refused(tmp_path):
    np.save(tmp_path / "clinical.npy", np.full((2, 4, 4), "a"))
    with pytest.raises(UserError, match="holds no patches, but <U1"):
        patch_files.open_patches(tmp_path / "clinical.npy")


def test_an_index_of_patches_that_lie_nowhere_is_refused(tmp_path):
    index = pd.DataFrame([["a", "clinical", -1, 0, 0, 8]], columns=patch_files.INDEX_COLUMNS)
    index.to_csv(tmp_path / "index.csv", index=False)
    with pytest.raises(UserError, match="lists patches at impossible places"):
        patch_files.read_index(tmp_path / "index.csv")


def test_a_domain_check_that_is_none_is_refused(tmp_path):
    (tmp_path / "domain.csv").touch()
    with pytest.raises(UserError, match="is no domain check"):
        make_domain(tmp_path / "domain.csv", tmp_path / "domain")


def test_a_volume_of_grey_values_is_no_clinical_ct(tmp_path, refused):
    path = volume(tmp_path / "grey.ome.zarr", unit="grey")
    assert "has unit 'grey', not HU; give a clinical CT" in refused(
        *["superresolve", path, "--upsampler", "bicubic", "--output", tmp_path / "sr.ome.zarr"]
    )


@pytest.mark.parametrize("words", [["record.json", "microscope=x"], ["record.json", "clinical=x"]])
def test_a_view_that_names_too_little_is_refused(words):
    with pytest.raises(UserError, match="--view"):
        viewer.read_source(words)


@pytest.mark.parametrize("text", ["", "[]", "{}", json.dumps({"slices_read": {}, "slice": "x", "insets": []})])
def test_a_record_of_no_comparison_is_refused(tmp_path, text):
    (tmp_path / "record.json").write_text(text)
    with pytest.raises(UserError, match="is no record of a comparison figure"):
        viewer._read_record(tmp_path / "record.json")


def test_slices_that_a_view_needs_must_be_there(tmp_path):
    held = open_volume(volume(tmp_path / "ct.ome.zarr"))
    with pytest.raises(UserError, match="has no slice 9"):
        viewer._check_holds(tmp_path, held, 9, tmp_path)
    with pytest.raises(UserError, match="does not hold slice 9"):
        viewer._position(tmp_path, [1, 2], 9)


def test_what_is_no_picture_is_refused(tmp_path):
    (tmp_path / "figure.png").write_text("none")
    with pytest.raises(UserError, match="is no picture"):
        figures.shrink(tmp_path / "figure.png")
    Image.new("L", (4, 4)).save(tmp_path / "figure.png")
    assert figures.shrink(tmp_path / "figure.png")[1] == (4, 4)


@pytest.mark.parametrize("pairs", [["proposed"], ["=x"], ["a=x", "a=y"]])
def test_files_without_a_name_of_their_own_are_refused(pairs):
    with pytest.raises(UserError, match=r"--runs: '.*' must be NAME=PATH, with a name that is given once"):
        config.named_paths(pairs, "runs")


def test_states_and_records_are_of_the_same_trainings(tmp_path):
    asked = types.SimpleNamespace(runs=["a=x"], states=["b=x"], output=tmp_path / "panels")
    with pytest.raises(UserError, match="--states: must name the same trainings as --runs"):
        report._panels(asked)


def test_a_state_that_cannot_be_saved_is_told(caplog):
    def save():
        raise OSError(28, "No space left on device")

    train._save_or_warn(save)
    assert "the state could not be saved ([Errno 28] No space left on device); the training goes on" in caplog.text
    with pytest.raises(UserError, match="stopped after step 7, and the state could not be saved"):
        train._stop(save, 7, [])


def test_a_figure_of_hallucinations_needs_maps_of_the_same_methods(tmp_path):
    with pytest.raises(UserError, match="maps of a but images of b; give both of each method"):
        make_hallucination(tmp_path, tmp_path, {"b": tmp_path}, {"a": tmp_path}, Figures(), tmp_path)


def test_an_inset_beyond_the_slice_is_refused():
    with pytest.raises(UserError, match=r"figures.insets: the first one does not lie in the slice of 2 rows"):
        comparison.crop_inset(np.zeros((16, 16)), Inset(row=1, column=1, size=8), 8, "the first one")


@pytest.mark.parametrize("sides", [{"size": 0, "tile": 4}, {"size": 4, "tile": 0}])
def test_a_tile_has_a_size(tmp_path, sides):
    with pytest.raises(UserError, match="is 0, must be at least 1"):
        tiling.make_tiling(tmp_path, {}, Figures(), output=tmp_path, table=tmp_path, **sides)


def test_a_volume_that_names_too_few_slices_is_refused(tmp_path):
    held = open_volume(volume(tmp_path / "sr.ome.zarr", slices=[3]))
    with pytest.raises(UserError, match="names 1 clinical slices but has 2; make it anew"):
        comparison._slices(tmp_path, held)


def test_damaged_voxels_are_named(tmp_path):
    path = volume(tmp_path / "ct.ome.zarr")
    for chunk in (path / "0" / "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(b"damaged")
    with pytest.raises(UserError, match="has damaged voxels"):
        open_volume(path).array[0]


def test_a_mask_of_another_size_is_refused(tmp_path):
    path = volume(tmp_path / "ct.ome.zarr")
    group = zarr.open_group(str(path), mode="r+")
    group.create_array("labels/mask/0", shape=(1, 2, 2), dtype="u1")
    with pytest.raises(UserError, match="has no sound mask"):
        open_mask(path)


def test_a_grid_that_is_not_square_is_no_example_for_matched_sampling(tmp_path):
    path = volume(tmp_path / "ct.ome.zarr", spacing=(0.6, 0.7, 1.0))
    with pytest.raises(UserError, match="its pixels are not square"):
        volumes._target(MicroVolume(sampling="matched"), path, 8, "x")


def test_a_specimen_smaller_than_a_pixel_is_refused():
    small = Volume(np.zeros((2, 2, 2), np.int16), (0.001, 0.001, 0.001), unit="grey")
    with pytest.raises(UserError, match="is smaller than one pixel of the new grid"):
        volumes._sampling(small, MicroVolume(sampling="native", area_average=8), None, 8, "x")


def test_panels_that_are_not_kept_are_told(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(panels, "read_panels", lambda record, states: {})
    monkeypatch.setattr(panels, "draw_panels", lambda found: None)
    monkeypatch.setattr(panels, "save", lambda figure, output: None)
    panels.make_panels({"a": tmp_path}, {"a": tmp_path}, tmp_path / "panels")
    assert f"a: no sample panels are kept in {tmp_path}" in caplog.text


def test_a_specimen_below_air_reaches_no_mean():
    air = np.full((4, 4), -1200.0)
    everywhere = np.ones((4, 4), bool)
    settings = Calibration(method="none", mean_hu=-850)
    with pytest.raises(UserError, match="the specimen's mean is -1200 HU, not above air"):
        calibration.fit(settings, calibration.Sample([air], [everywhere]), [everywhere])


def test_windows_of_solid_tissue_are_told(caplog):
    mask = np.ones((1, 32, 32), bool)
    counts = positions.count_positions(mask, 8, 1.0, [0])
    distribution._places(np.full(mask.shape, 40.0), (mask, [0]), counts, 8, 5, np.random.default_rng(0))
    assert "5 of 5 windows are denser than" in caplog.text


def test_a_figure_taller_than_a_page_is_told(tmp_path, caplog):
    style.save(style.new_figure(1, 9), tmp_path / "tall")
    assert f"{tmp_path / 'tall'} is 9.0 in tall, a page 8.5; show fewer methods" in caplog.text


def test_a_tiling_figure_needs_hu(tmp_path):
    write_volume(tmp_path / "grey", Volume(np.zeros((1, 8, 8), np.int16), (1, 1, 1), unit="grey"), np.ones((1, 8, 8)))
    with pytest.raises(UserError, match="has unit 'grey', not HU; give a clinical CT"):
        tiling.make_tiling(tmp_path / "grey", {}, Figures(), output=tmp_path, table=tmp_path, size=8, tile=4)


def test_a_figure_of_metrics_needs_some_of_its_protocol(tmp_path):
    row = {"case": "a", "method": "m", "training_set": "pooled", "seed": 1, "protocol": "truth"}
    pd.DataFrame([row | {"metric": "psnr", "value": 30.0, "unit": "dB"}]).to_csv(tmp_path / "t.csv", index=False)
    with pytest.raises(UserError, match=r"t.csv holds no metrics of protocol repeatability"):
        make_metrics(tmp_path / "t.csv", tmp_path / "figure", "repeatability")


def test_a_batch_that_cannot_be_split_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"train.batch_size is 3, must be divisible by processes x accumulate = 2"):
        train.train(
            *({}, tmp_path, tmp_path), settings=Train(batch_size=3), method=CycleGANMethod(), window_hu=(-1000, 400),
            seed=1, compute=Compute(device="cpu", accumulate=2),
        )  # fmt: skip


def test_processes_that_see_different_states_are_refused(tmp_path):
    others = types.SimpleNamespace(device="cpu", tell=lambda what: 5)
    with pytest.raises(UserError, match=r"read different states in .*; it must be one folder for all"):
        train._run(None, None, tmp_path, {}, Setup(Train(), CycleGANMethod(), 1, processes=others), Compute())


def test_a_uct_of_which_nothing_is_left_is_refused(tmp_path, monkeypatch):
    grey = np.full((2, 32, 32), 1000, np.uint16)
    grey[:, 8:24, 8:24] = 5000
    path = tmp_path / "in.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(grey), str(path))
    settings = MicroVolume(sampling="native")
    scan = sheet.Scan(path=str(path), spacing="0.01x0.01x0.01")
    with monkeypatch.context() as emptied:
        emptied.setattr(volumes, "_fill", lambda part, *more: part.mkdir() or np.zeros(2))
        with pytest.raises(UserError, match="nothing of the specimen is left after resampling"):
            volumes.import_micro(scan, "a", settings, tmp_path / "m.ome.zarr")
    monkeypatch.setattr(find, "specimen_outline", lambda grey, *more: np.zeros(grey.shape, bool))
    with pytest.raises(UserError, match=r"in.nrrd: holds no specimen: no region denser than air"):
        volumes.import_micro(scan, "a", settings, tmp_path / "m.ome.zarr")
    assert not (tmp_path / "m.ome.zarr").exists()


def test_a_part_of_a_scan_that_is_none_is_refused(refused, tmp_path):
    command = ["volumes", "truth", "--case", "a", "--input", tmp_path, "--output", tmp_path / "t.ome.zarr"]
    assert "command line: slices" in refused(*command, "--slices", "first")


def test_a_spacing_of_an_input_that_is_none_is_refused(tmp_path):
    with pytest.raises(UserError, match="command line: spacing"):
        superresolve.open_input(tmp_path, spacing="thick")


def test_a_training_without_what_it_learns_from_is_refused(refused, tmp_path):
    command = ["train", "--kind", "regression", "--micro", tmp_path / "micro.npy", "--output", tmp_path / "model"]
    command += ["--state", tmp_path / "state", "--seed", 1, "--window_hu", -1000, 400]
    assert refused(*command).startswith("--scans must be given: kind regression learns from ")


def test_damaged_panels_are_told(tmp_path, caplog, monkeypatch):
    (tmp_path / "tensorboard").mkdir()
    monkeypatch.setattr(panels, "_folder", lambda record, states: tmp_path)
    monkeypatch.setattr(panels, "EventAccumulator", lambda *what, **how: 1 / 0)
    assert panels.read_panels(tmp_path, tmp_path) == {}
    assert f"{tmp_path}: its sample panels cannot be read" in caplog.text
