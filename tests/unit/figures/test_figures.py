import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.image import imread

from microsr import cli
from microsr.config import CycleGANMethod, Figures, Inset, Losses, Train, UntrainedMethod, named_paths
from microsr.core.errors import UserError
from microsr.core.provenance import checksum
from microsr.evaluation.names import method_name
from microsr.evaluation.tables import COLUMNS
from microsr.figures.charts.domain import draw_domain, make_domain
from microsr.figures.charts.losses import draw_losses, make_losses, smooth
from microsr.figures.charts.metrics import choose_models, draw_metrics
from microsr.figures.network import draw_network
from microsr.figures.pictures.comparison import (
    Field,
    Panel,
    choose_insets,
    choose_slice,
    draw_comparison,
    lung_field,
    make_comparison,
)
from microsr.figures.pictures.patches import coverage, draw_patches, fullest_slices, make_patches
from microsr.figures.style import GREY, SPREAD_HU, nice_length, save
from microsr.volume.storage import Volume, magnified_geometry, write_volume

CYCLEGAN = Losses(cycle=10, downsample=0, upsample=0, clinical_ssim=0, micro_ssim=0)
PROPOSED_LOSSES = {"downsample_loss", "upsample_loss", "clinical_ssim_loss", "micro_ssim_loss"}


@pytest.fixture
def lung():
    """Three clinical slices of 40 x 48 pixels: soft tissue around a lung with a tumour, a vessel and air; the mask; the
    truth.
    """
    rows, columns = np.mgrid[:40, :48]
    mask = np.stack([np.hypot((rows - 20) / r, (columns - 24) / 22) < 1 for r in (16, 18, 17)])
    hu = np.where(mask, -850.0 + 10 * np.arange(3)[:, None, None], 30.0)
    hu[:, np.hypot(rows - 20, columns - 14) < 4] = 40
    hu[:, np.hypot(rows - 20, columns - 34) < 1.5] = -300
    clinical = Volume(hu, (0.6, 0.6, 1.0), origin=(5.0, 6.0, 7.0))
    fine = hu.repeat(8, 1).repeat(8, 2) + np.arange(8 * 48) % 2
    return clinical, mask, Volume(fine, **magnified_geometry(clinical, 8))


@pytest.fixture
def files(lung, tmp_path):
    """The volumes on disk; `proposed` and `bicubic` hold the clinical slices 2 and 0, in this order."""
    clinical, mask, truth = lung
    write_volume(tmp_path / "clinical", clinical, mask)
    write_volume(tmp_path / "truth", truth)
    for name, shift in (("proposed", 10), ("bicubic", 20)):
        array = truth.array[[2, 0]] + shift
        geometry = magnified_geometry(clinical, 8)
        write_volume(tmp_path / name, Volume(array, **geometry, attributes={"slices": [2, 0]}))
    return tmp_path


def panels_of(lung):
    clinical, _, truth = lung
    return [Panel("Clinical CT", clinical, 1, 1), Panel("Proposed", truth, 1, 8)]


def images(figure):
    """Image of each panel that has one, by row then column, the grey scale left out."""
    return [np.asarray(a.images[0].get_array()) for a in figure.axes if a.images and a.get_label() != "grey scale"]


def test_all_panels_show_the_same_field_in_the_same_window_at_their_own_pixels(lung):
    field, inset = Field(0, 40, 0, 48), Inset(row=10, column=6, size=12)
    figure = draw_comparison(panels_of(lung), field, [inset], (-1000.0, 200.0), note="simulated")
    clinical, superresolved = lung[0].array[1], lung[2].array[1]
    overview = images(figure)[:2]
    assert np.array_equal(overview[0], clinical.repeat(8, 0).repeat(8, 1))
    assert np.array_equal(overview[1], superresolved)
    zoomed = images(figure)[2:]
    assert np.array_equal(zoomed[0], clinical[10:22, 6:18].repeat(8, 0).repeat(8, 1))
    assert np.array_equal(zoomed[1], superresolved[80:176, 48:144])
    shown = [a for a in figure.axes if a.images and a.get_label() != "grey scale"]
    assert {a.images[0].get_clim() for a in shown} == {(-1000.0, 200.0)}
    assert {a.images[0].get_interpolation() for a in shown} == {"nearest"}
    assert [a.get_title(loc="left") for a in shown[:2]] == ["(a) Clinical CT", "(b) Proposed"]
    assert "0.6 mm pixels" in [t.get_text() for t in shown[0].texts]
    assert "0.075 mm pixels" in [t.get_text() for t in shown[1].texts]
    assert "simulated" in [t.get_text() for t in figure.texts]


def test_an_sd_has_colours_and_a_scale_of_its_own(lung):
    panels = [*panels_of(lung), Panel("SD of 16", lung[2], 1, 8, is_spread=True)]
    figure = draw_comparison(panels, Field(0, 40, 0, 48), [], (-1000.0, 200.0))
    shown = {a.get_title(loc="left"): a.images[0] for a in figure.axes[:3]}
    assert {name: (i.get_cmap().name, i.get_clim()) for name, i in shown.items()} == {
        "(a) Clinical CT": ("gray", (-1000, 200)),
        "(b) Proposed": ("gray", (-1000, 200)),
        "(c) SD of 16": ("magma", (0, SPREAD_HU)),
    }
    assert {a.get_title() for a in figure.axes[3:]} == {"HU", "SD (HU)"}
    without = draw_comparison(panels[:2], Field(0, 40, 0, 48), [], (-1000.0, 200.0))
    assert [a.get_title() for a in without.axes[2:]] == ["HU"]


def test_insets_are_marked_where_they_lie_in_millimetres(lung):
    figure = draw_comparison(panels_of(lung), Field(4, 40, 2, 48), [Inset(row=10, column=6, size=12)], (-1000, 200))
    for axes in figure.axes[:2]:
        square = axes.patches[0]
        assert square.get_xy() == pytest.approx(((6 - 2) * 0.6, (10 - 4) * 0.6))
        assert square.get_width() == square.get_height() == pytest.approx(12 * 0.6)
        assert axes.images[0].get_extent() == pytest.approx((0, 46 * 0.6, 36 * 0.6, 0))
    assert figure.axes[2].images[0].get_extent() == pytest.approx((4 * 0.6, 16 * 0.6, 18 * 0.6, 6 * 0.6))


def test_a_scale_bar_has_the_length_that_it_says(lung):
    figure = draw_comparison(panels_of(lung), Field(0, 40, 0, 48), [Inset(row=10, column=6, size=12)], (-1000, 200))
    for axes, millimetres in ((figure.axes[0], 5.0), (figure.axes[2], 2.0)):
        bar = next(line for line in axes.lines if line.get_label() == "scale bar")
        assert np.ptp(bar.get_xdata()) * np.ptp(axes.get_xlim()) == pytest.approx(millimetres)
        assert f"{millimetres:g} mm" in [t.get_text() for t in axes.texts]


@pytest.mark.parametrize(("extent", "length"), [(100, 20), (60, 10), (17, 5), (16, 2), (3.4, 1), (0.5, 0.1)])
def test_a_scale_bar_is_1_2_or_5_and_at_most_30_percent_of_the_panel(extent, length):
    assert nice_length(extent) == pytest.approx(length)


def test_an_overview_finer_than_print_is_averaged_so_that_nothing_aliases():
    checks = np.where(np.indices((256, 1088)).sum(0) % 2, -700.0, -900.0)
    volume = Volume(checks[None], (0.075, 0.075, 1.0))
    panel = Panel("Proposed", volume, 0, 8)
    figure = draw_comparison([panel] * 4, Field(0, 32, 0, 136), [], (-1000, 200))
    assert images(figure)[0].shape == (128, 544)
    assert np.all(images(figure)[0] == -800)


def test_insets_are_inside_the_lung_apart_and_one_is_parenchyma(lung):
    clinical, mask, _ = lung
    found = choose_insets(clinical.array[1], mask[1], size=12)
    squares = [(slice(i.row, i.row + 12), slice(i.column, i.column + 12)) for i in found]
    assert len(found) == 2
    assert all(mask[1][square].all() for square in squares)
    covered = np.zeros((40, 48), int)
    for square in squares:
        covered[square] += 1
    assert covered.max() == 1
    assert (clinical.array[1][squares[0]] == 40).sum() > 25, "the first holds the tumour"
    assert (clinical.array[1][squares[1]] == 40).sum() == 0
    assert (clinical.array[1][squares[1]] == -300).sum() > 0, "the second holds the small vessel"


def test_insets_shrink_until_they_fit_and_are_none_without_lung(lung):
    clinical, mask, _ = lung
    strip = mask[1].copy()
    strip[:17], strip[24:] = False, False
    assert {i.size for i in choose_insets(clinical.array[1], strip, size=24)} == {6}
    assert choose_insets(clinical.array[1], np.zeros_like(strip)) == []


def test_the_field_is_the_lung_with_5_mm_and_holds_every_inset():
    mask = np.zeros((100, 100), bool)
    mask[30:60, 40:50] = True
    assert lung_field(mask, (1.0, 0.5, 1.0), []) == Field(20, 70, 35, 55)
    assert lung_field(mask, (1.0, 1.0, 1.0), [Inset(row=80, column=0, size=10)]) == Field(25, 95, 0, 55)
    assert lung_field(np.zeros((100, 90), bool), (1.0, 1.0, 1.0), []) == Field(0, 100, 0, 90)


def test_the_slice_is_the_super_resolved_one_with_most_lung(lung):
    mask = lung[1]  # slice 1 has most lung, then 2, then 0
    assert choose_slice(mask, {Path("a"): [0, 1, 2]}, None) == 1
    assert choose_slice(mask, {Path("a"): [0, 1, 2], Path("b"): [2, 0]}, None) == 2
    assert choose_slice(mask, {Path("a"): [2, 0]}, 0) == 0
    with pytest.raises(UserError, match=r"figures.slice is 1, but b holds the clinical slices 2, 0"):
        choose_slice(mask, {Path("b"): [2, 0]}, 1)
    with pytest.raises(UserError, match="no slice in common"):
        choose_slice(mask, {Path("a"): [1], Path("b"): [2]}, None)


def test_the_comparison_takes_each_volumes_own_index_of_the_slice(files, monkeypatch):
    drawn = []
    monkeypatch.setattr("microsr.figures.pictures.comparison.save", lambda figure, output: drawn.append(figure))
    sr = {"proposed": files / "proposed", "bicubic": files / "bicubic"}
    settings = Figures(insets=[Inset(row=10, column=6, size=12)])
    shown = make_comparison(files / "clinical", sr, settings, files / "out", truth=files / "truth")
    assert shown["slice"] == 2
    titles = [axes.get_title(loc="left") for axes in drawn[0].axes[:4]]
    assert titles == ["(a) Clinical CT", "(b) Proposed", "(c) Bicubic", "(d) Truth"]
    _, proposed, bicubic, truth = images(drawn[0])[4:]
    assert np.all(proposed - truth == 10)
    assert np.all(bicubic - truth == 20)


def test_too_little_lung_for_an_inset_is_told(files, lung, caplog):
    clinical, mask, _ = lung
    write_volume(files / "clinical", clinical, mask & (np.arange(48) == 24))
    make_comparison(files / "clinical", {"bicubic": files / "bicubic"}, Figures(), files / "c")
    assert f"slice 2 of {files / 'clinical'} has too little lung for an inset; give figures.insets" in caplog.text


def test_volumes_that_do_not_belong_together_are_refused(files, lung):
    truth = lung[2]
    other = Volume(truth.array[:, :312], truth.spacing, attributes={"slices": [0, 1, 2]})
    write_volume(files / "other", other)
    write_volume(files / "plain", truth)
    far = Volume(truth.array[:1], truth.spacing, origin=(5.0, 6.0, 70.0))
    write_volume(files / "far", far)

    def compare(sr, **more):
        make_comparison(
            files / "clinical", {"proposed": files / sr}, Figures(**more.pop("settings", {})), files / "out", **more
        )

    with pytest.raises(UserError, match="other has 312 x 384 pixels"):
        compare("other")
    with pytest.raises(UserError, match="plain does not say which clinical slices it holds"):
        compare("plain")
    with pytest.raises(UserError, match="far has no slice where slice 2"):
        compare("proposed", truth=files / "far")
    with pytest.raises(UserError, match="row 30, column 0, size 20 reaches beyond"):
        compare("proposed", settings={"insets": [Inset(row=30, column=0, size=20)]})


def test_the_network_figure_shows_exactly_the_losses_in_use():
    def drawn(method):
        texts = draw_network(method, Train(network="resnet"), (16, 128)).axes[0].texts
        return {name for t in texts if t.get_gid() for name in t.get_gid().split(", ")}, [t.get_text() for t in texts]

    proposed, words = drawn(CycleGANMethod())
    assert proposed >= PROPOSED_LOSSES | {
        "cycle_clinical",
        "cycle_micro",
        "G1_adversarial",
        "G2_adversarial",
        "D1",
        "D2",
    }
    assert any("25 %" in w for w in words)
    assert any("resnet" in w for w in words)
    assert {"clinical CT, 16×16", "super-resolved, 128×128", "uCT, 128×128", "clinical-like, 16×16"} <= set(words)
    cyclegan, words = drawn(CycleGANMethod(losses=CYCLEGAN, mix_fraction=0))
    assert not cyclegan & PROPOSED_LOSSES
    assert words.count("weight 10") == 2
    assert not any("%" in w for w in words)
    assert drawn(CycleGANMethod(losses=Losses(adversarial=0, cycle=0, upsample=0, micro_ssim=0)))[0] == {
        "downsample_loss",
        "clinical_ssim_loss",
    }
    assert any("L1(" in w and "f(" in w for w in drawn(CycleGANMethod(losses=Losses(pixel_norm="l1")))[1])
    with pytest.raises(UserError, match="bicubic"):
        drawn(UntrainedMethod(kind="bicubic"))


def test_the_network_figure_names_the_family_and_what_holds_a_training_stable():
    train = Train(network="efficient", gradient_penalty=2, ema_decay=0.99)
    words = [t.get_text() for t in draw_network(CycleGANMethod(), train, (16, 128), "proposed").axes[0].texts]
    assert any(w.startswith("Proposed: efficient networks") for w in words)
    assert any("R1 penalty" in w and "weight 2" in w and "decay 0.99" in w for w in words)
    assert not any("R1" in t.get_text() for t in draw_network(CycleGANMethod(), Train(), (16, 128)).axes[0].texts)


@pytest.mark.parametrize(
    "method",
    [
        CycleGANMethod(),
        CycleGANMethod(losses=CYCLEGAN, mix_fraction=0),
        CycleGANMethod(losses=Losses(cycle=0)),
    ],
)
@pytest.mark.parametrize("train", [Train(), Train(gradient_penalty=1, ema_decay=0.999)])
def test_nothing_written_in_the_network_figure_overlaps_or_leaves_it(method, train):
    figure = draw_network(method, train, (32, 256), "proposed")
    boxes = [(t.get_text(), t.get_window_extent()) for t in figure.axes[0].texts]
    for text, box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height, text
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        assert not a.overlaps(b), f"{one} / {other}"


@pytest.fixture
def histories():
    step = np.arange(1.0, 101.0)
    common = {"step": step, "epoch": step / 10, "learning_rate": np.full(100, 1e-4)}
    wide = pd.DataFrame(common | {"cycle_clinical": 1 / step, "downsample_loss": 2 + np.sin(step)})
    return {"proposed/pooled": wide, "cyclegan/pooled": wide.drop(columns="downsample_loss") * 2}


def test_loss_curves_have_a_panel_a_loss_and_a_line_a_model(histories):
    figure = draw_losses(histories)
    panels = {axes.get_title(loc="right"): axes for axes in figure.axes}
    assert {"cycle_clinical", "downsample_loss", "learning rate"} <= set(panels)

    def named(axes):
        return [line.get_label() for line in axes.lines if not line.get_label().startswith("_")]

    assert named(panels["cycle_clinical"]) == ["Proposed", "CycleGAN"]
    assert named(panels["downsample_loss"]) == ["Proposed"]
    assert panels["cycle_clinical"].get_yscale() == "log", "it spans a factor of 100"
    assert panels["downsample_loss"].get_yscale() == "linear", "it spans a factor of 3"
    raw = panels["cycle_clinical"].lines[0]
    assert np.allclose(raw.get_ydata(), histories["proposed/pooled"]["cycle_clinical"])


def test_smoothing_is_a_centred_mean_that_keeps_a_straight_line():
    line = np.arange(100.0)
    assert np.allclose(smooth(line)[2:-2], line[2:-2])  # 100 // 40 = 2 values on each side
    assert smooth(np.r_[np.zeros(50), 5.0, np.zeros(49)])[48:53] == pytest.approx([1, 1, 1, 1, 1])


def test_a_file_that_is_no_history_is_named(tmp_path):
    (tmp_path / "h.csv").write_text("step,loss\n1,2\n")
    with pytest.raises(UserError, match=r"h.csv has no column epoch"):
        make_losses({"proposed": tmp_path / "h.csv"}, tmp_path / "out")
    with pytest.raises(UserError, match=r"none.csv is no training history"):
        make_losses({"proposed": tmp_path / "none.csv"}, tmp_path / "out")


@pytest.fixture
def index():
    places = [(0, 10, 14), (1, 10, 16), (1, 12, 18), (1, 14, 20), (2, 14, 20), (2, 14, 20)]
    return pd.DataFrame(places, columns=["slice", "row", "column"]).assign(case="a", modality="clinical", size=10)


def test_coverage_counts_the_patches_over_each_pixel(index):
    expected = np.zeros((40, 48), int)
    for row, column in ((10, 16), (12, 18), (14, 20)):
        expected[row : row + 10, column : column + 10] += 1
    assert np.array_equal(coverage(index[index["slice"] == 1], (40, 48)), expected)
    corner = pd.DataFrame({"row": [30], "column": [38], "size": [10]})
    assert coverage(corner, (40, 48)).sum() == 100


def test_the_patch_figure_shows_the_fullest_slices_with_squares_where_patches_are(lung, index):
    clinical, mask, _ = lung
    assert fullest_slices(index, 2) == [1, 2]
    figure = draw_patches(clinical, mask, index, [1, 2], (-900.0, 100.0))
    assert figure.axes[0].images[0].get_clim() == (-900, 100)
    panels = figure.axes[:2]
    assert [axes.get_title(loc="left") for axes in panels] == ["slice 1: 3 patches", "slice 2: 2 patches"]
    assert np.array_equal(panels[0].images[0].get_array(), clinical.array[1])
    assert panels[0].images[1].get_array().max() == 3
    corners = sorted(p.get_xy() for p in panels[0].patches if p.get_width() == pytest.approx(6.0))
    assert np.allclose(corners, [(16 * 0.6, 10 * 0.6), (18 * 0.6, 12 * 0.6), (20 * 0.6, 14 * 0.6)])


def test_an_index_of_another_volume_is_refused(files, index):
    index.assign(row=35).to_csv(files / "index.csv", index=False)
    with pytest.raises(UserError, match=r"index.csv lists patches beyond .*clinical"):
        make_patches(files / "clinical", files / "index.csv", files / "out")


def domain_table(agree):
    rows = []
    for domain, mean, sd in (("clinical", -850.0, 90.0), ("pooled_micro", -700.0, 180.0)):
        rows += [(domain, "mean", None, mean), (domain, "sd", None, sd)]
        rows += [(domain, "histogram", x, 0.25) for x in (-1000, -900, -800, -700)]
        rows += [(domain, "spectrum", x, 4 - 2 * x) for x in (0.1, 0.3, 0.5)]
    rows += [
        ("difference", q, None, v) for q, v in (("mean", 150.0), ("sd", 2.0), ("histogram", 0.3), ("spectrum", 0.5))
    ]
    rows += [("limit", q, None, v) for q, v in (("mean", 50.0), ("sd", 1.5), ("histogram", 0.6), ("spectrum", 0.35))]
    rows.append(("difference", "verdict", None, float(agree)))
    return pd.DataFrame(rows, columns=["domain", "quantity", "x", "value"]).assign(unit="")


def test_the_domain_figure_says_the_verdict_and_shows_the_tables_values():
    figure = draw_domain(domain_table(agree=False))
    words = " ".join(t.get_text() for t in figure.texts)
    assert "disagree" in words
    assert "mean +150 HU (limit ±50)" in words
    histogram, moments, spectrum = figure.axes
    assert np.array_equal(histogram.lines[0].get_ydata(), [25, 25, 25, 25])
    assert np.allclose(spectrum.lines[1].get_ydata(), [3.8, 3.4, 3.0])
    assert [t.get_text() for t in moments.texts] == ["−850 ± 90", "−700 ± 180"]
    agree = " ".join(t.get_text() for t in draw_domain(domain_table(agree=True)).texts)
    assert "agree" in agree and "disagree" not in agree


def test_a_domain_table_without_a_verdict_is_refused(tmp_path):
    domain_table(True).query("quantity != 'verdict'").to_csv(tmp_path / "domain.csv", index=False)
    with pytest.raises(UserError, match=r"domain.csv is no complete domain check"):
        make_domain(tmp_path / "domain.csv", tmp_path / "out")


def test_the_metrics_figure_says_that_its_cases_are_no_test_cases():
    rows = [("c", "bicubic", "none", "none", "truth", "psnr", 17.0, "dB")]
    drawn = {split: draw_metrics(pd.DataFrame(rows, columns=COLUMNS), split) for split in ("test", "validation")}
    said = {split: [text.get_text() for text in figure.texts] for split, figure in drawn.items()}
    assert said == {"test": [], "validation": ["Of validation cases, not of test cases."]}


def test_the_metrics_figure_has_bars_to_the_mean_dots_by_case_and_says_which_way_is_better():
    rows = [
        (case, method, training_set, "1", protocol, metric, value, "dB" if metric == "psnr" else "HU")
        for method, training_set, values in (("bicubic", "none", (9.0, 11.0)), ("proposed", "pooled", (30.0, 32.0)))
        for case, value in zip("ab", values, strict=True)
        for protocol, metric in (("no_reference", "consistency_rmse"), ("truth", "psnr"))
    ]
    figure = draw_metrics(pd.DataFrame(rows, columns=COLUMNS))
    first, second = figure.axes
    assert first.get_title(loc="left") == "Fit to the input (HU)"
    assert [t.get_text() for t in first.get_yticklabels()] == ["Proposed", "Bicubic"]
    assert [bar.get_width() for bar in first.patches] == [31.0, 10.0]
    dots = [line.get_xdata().tolist() for line in first.lines if line.get_marker() == "o"]
    assert dots == [[30.0, 32.0], [9.0, 11.0]]
    assert any("nearest to the truth's score" in t.get_text() for t in first.texts)
    assert any("higher is better" in t.get_text() for t in second.texts)


def test_the_metrics_figure_has_a_line_at_the_truths_score_and_greys_what_is_known():
    values = {"proposed": (20.0, 16.0), "truth": (70.0, np.inf), "noise_free": (65.0, 17.0), "bicubic": (40.0, 15.0)}
    kinds = [("no_reference", "consistency_rmse", "HU"), ("truth", "psnr", "dB")]
    rows = [
        ("a", method, "none", "none", protocol, metric, value, unit)
        for method, pair in values.items()
        for (protocol, metric, unit), value in zip(kinds, pair, strict=True)
    ]
    first, second = draw_metrics(pd.DataFrame(rows, columns=COLUMNS)).axes
    names = [t.get_text() for t in first.get_yticklabels()]
    assert names == ["Truth", "Noise-free", "Proposed", "Bicubic"]
    assert [[*line.get_xdata()] for line in first.lines if line.get_label() == "truth"] == [[70.0, 70.0]]
    assert not [line for line in second.lines if line.get_label() == "truth"], "the truth's PSNR is infinite"
    assert "∞" in [t.get_text() for t in second.texts]
    colours = [to_hex(bar.get_facecolor()) for bar in first.patches]
    assert colours[0] == colours[1] == GREY.lower() and len(set(colours[1:])) == 3


def test_with_several_seeds_the_dots_are_trainings_and_a_line_spans_their_interval():
    rows = [
        (case, "proposed", "pooled", str(seed), "truth", "psnr", value, "dB")
        for seed, value in ((1, 10.0), (2, 12.0), (3, 14.0))
        for case in "ab"
    ]
    (axes,) = draw_metrics(pd.DataFrame(rows, columns=COLUMNS)).axes
    assert [line.get_xdata().tolist() for line in axes.lines if line.get_marker() == "o"] == [[10.0, 12.0, 14.0]]
    spans = [np.ptp(line.get_xdata()) for line in axes.lines if line.get_marker() != "o"]
    assert max(spans) == pytest.approx(2 * 4.302653 * 2 / np.sqrt(3)), "Student's t over three values of SD 2"


def test_the_metrics_figure_joins_models_of_one_protocol_and_of_many_draws_the_pooled_ones():
    def drawn(methods):
        sets = ("pooled", "case-a", "case-b", "without-a", "specimen-x")
        rows = [("c", f"m{n}", name, "1", "truth", "psnr", 1.0, "dB") for n in range(methods) for name in sets]
        rows += [("c", "bicubic", "none", "none", "truth", "psnr", 1.0, "dB")]
        return choose_models(pd.DataFrame(rows, columns=COLUMNS))

    few, many = drawn(5), drawn(6)
    assert set(few["training_set"]) == {"pooled", "per_case", "leave_one_out", "specimen-x", "none"}
    assert set(many["training_set"]) == {"pooled", "none"} and len(set(many["method"])) == 7


def test_names_are_the_readers():
    assert method_name("proposed/pooled") == method_name("proposed") == "Proposed"
    assert method_name("bicubic/none") == "Bicubic"
    assert method_name("cyclegan/case-a") == "CycleGAN (case-a)"
    assert method_name("mine") == "mine"


def test_a_figure_is_the_same_byte_for_byte_with_fonts_embedded(tmp_path):
    for name in ("a", "b"):
        save(draw_network(CycleGANMethod(), Train(), (32, 256)), tmp_path / name)
    for kind in ("png", "pdf"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    document = (tmp_path / "a.pdf").read_bytes()
    assert b"/CreationDate" not in document
    assert b"/Type3" not in document and b"/CIDFontType2" in document
    pixels = imread(tmp_path / "a.png")
    assert pixels.shape[1] == 7.16 * 300
    assert pixels.std() > 0.05


def test_the_command_draws_and_says_how(files):
    cli.main(
        [
            "figures",
            "comparison",
            "--clinical",
            str(files / "clinical"),
            "--truth",
            str(files / "truth"),
            "--superresolved",
        ]
        + [f"{name}={files / name}" for name in ("proposed", "bicubic")]
        + ["--insets", "[{row: 10, column: 6, size: 12}]", "--slice", "0", "--output", str(files / "f" / "comparison")]
    )
    record = json.loads((files / "f" / "comparison.run.json").read_text(encoding="utf-8"))
    assert record["slice"] == 0
    assert record["insets"] == [{"row": 10, "column": 6, "size": 12}]
    assert list(record["inputs"]) == [str(files / name) for name in ("clinical", "proposed", "bicubic", "truth")]
    assert record["inputs"][str(files / "clinical")] == checksum(files / "clinical")
    places = {"proposed": [1], "bicubic": [1], "truth": [0]}  # of slice 0 in each volume
    assert record["slices_read"] == {str(files / name): place for name, place in places.items()}
    assert imread(files / "f" / "comparison.png").std() > 0.05
    assert (files / "f" / "comparison.pdf").stat().st_size > 1000


@pytest.mark.parametrize("pairs", [["proposed"], ["=a"], ["proposed="], ["p=a", "p=b"]])
def test_a_malformed_name_is_refused(pairs):
    with pytest.raises(UserError, match=r"--history: .* must be NAME=PATH"):
        named_paths(pairs, "history")
    assert named_paths(["p/pooled=a=b"], "history") == {"p/pooled": Path("a=b")}
