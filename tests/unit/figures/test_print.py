"""Every figure is fit for print: one or two columns wide, no taller than a page, fonts embedded, images of 300 dpi, no
text small, cut or hidden.

Each is drawn with few and with many methods, from made-up tables and volumes.
"""

import itertools

import numpy as np
import pandas as pd
import pytest
from printing import faults, read_page

from microsr.config import CycleGANMethod, Inset, Train
from microsr.evaluation.catalogue import CANDIDATES, HEADLINE, METRICS
from microsr.evaluation.protocols.uncertainty import CURVES
from microsr.evaluation.tables import COLUMNS
from microsr.figures.charts.bronchioles import draw_bronchioles
from microsr.figures.charts.domain import draw_domain
from microsr.figures.charts.efficiency import SHOWN, draw_efficiency
from microsr.figures.charts.losses import draw_losses
from microsr.figures.charts.metrics import draw_metrics
from microsr.figures.charts.metrics_validation import COLUMNS as VALIDATED
from microsr.figures.charts.metrics_validation import draw_metrics_validation
from microsr.figures.charts.reliability import draw_reliability
from microsr.figures.charts.scanner import draw_scanner
from microsr.figures.charts.validation import draw_validation
from microsr.figures.charts.volumes import draw_volumes
from microsr.figures.network import draw_network
from microsr.figures.pictures.comparison import Field, Panel, draw_comparison
from microsr.figures.pictures.hallucination import draw_hallucination
from microsr.figures.pictures.patches import draw_patches
from microsr.figures.pictures.tiling import draw_tiling
from microsr.figures.pictures.uncertainty import Panel as Shown
from microsr.figures.pictures.uncertainty import draw_uncertainty
from microsr.figures.style import COLUMN, LINES, new_figure, save, styled
from microsr.figures.typeset import COLUMNS as TABLE_1
from microsr.simulation.validation.checks import COLUMNS as CHECKED
from microsr.volume.storage import Volume

FOUR = ["proposed", "bicubic", "cyclegan", "regression"]
MANY = [*FOUR, "without_ssim", "without_cycle", "l1_losses", "spectral_norm"]
RNG = np.random.default_rng(7)
CLINICAL = Volume(RNG.normal(-800, 100, (1, 40, 48)).astype(np.float32), (0.625, 0.625, 0.6))
FINE = Volume(np.repeat(np.repeat(CLINICAL.array, 8, 1), 8, 2), (0.078125, 0.078125, 0.6))
TISSUES = ["glass", "lumen", "parenchyma", "septum", "tumour", "vessel", "wall"]
TRUTH = [
    "psnr", "ssim", "ms_ssim", "measured_rmse", "null_rmse", "small_lost", "small_invented", "lesions_lost",
    "lesions_invented", "wall_error_um", "tumour_border_error_um",
    *(f"small_{what}_{size}" for what in ("lost", "invented") for size in ("0.3-0.625", "0.625-1", "1-3")),
    "psnr_thick", "ssim_thick", "smallest_bronchiole",
    *(f"bronchiole_detected{bin}" for bin in ("", "_0.5-0.7", "_0.7-0.9", "_0.9-1.2", "_1.2-1.6", "_1.6-2.4")),
    *(f"{kind}_{tissue}" for kind in ("rmse", "ssim") for tissue in TISSUES),
]  # fmt: skip


def metrics(methods, kinds, values=(0.00571, 1.23, 1180.0)):
    rows = [
        (case, method, "pooled", str(seed), protocol, metric, values[place % 3] * (1 + 0.1 * seed + 0.2 * number), "HU")
        for place, (protocol, metric) in enumerate(kinds)
        for number, method in enumerate(methods)
        for seed in (1, 2, 3)
        for case in "ab"
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def comparison(methods, spread=None):
    panels = [
        Panel("Clinical CT", CLINICAL, 0, 1),
        *(Panel(name, FINE, 0, 8) for name in methods),
        Panel("Truth", FINE, 0, 8),
    ]
    insets = [Inset(row=4, column=4, size=16), Inset(row=20, column=24, size=16)]
    if spread:
        panels.insert(-1, Panel(spread, FINE, 0, 8, is_spread=True))
    title = "test1 (models trained on all)"
    return draw_comparison(panels, Field(0, 40, 0, 48), insets, (-1000, 200), title, "A note. " * 20)


def losses(methods):
    step = np.arange(1.0, 501.0)
    names = ["G1_adversarial", "cycle_clinical", "downsample_loss", "clinical_ssim_loss", "micro_ssim_loss", "D1"]
    losses = {name: 1e-3 * (2 + np.sin(step)) for name in names}
    table = pd.DataFrame({"step": step, "epoch": step, "learning_rate": 4e-4} | losses)
    return draw_losses({f"{name}/pooled": table for name in methods})


def bronchioles(methods):
    diameter = np.repeat(np.linspace(0.45, 2.2, 40), 4)
    detected = (diameter > 1).astype(int)
    table = pd.DataFrame({"diameter_mm": diameter, "detected": detected, "unit": np.arange(160) // 4, "seed": "1"})
    return draw_bronchioles({name: table for name in methods}, dict.fromkeys(methods, (1.01, 0.95, 1.12)))


def hallucination(methods):
    image = FINE.array[0, :320, :320]
    rows = {name: (image, image / 10, image / 10) for name in methods}
    return draw_hallucination(CLINICAL.array[0, :40, :40], image, rows, CLINICAL, (-1000, 200))


def tiling(methods):
    image = FINE.array[0]
    rows = {name: (image, np.full(image.shape, 2e-4), np.abs(image)) for name in methods}
    return draw_tiling(rows, dict.fromkeys(methods, 14), CLINICAL, (-1000, 200), 32, 8)


def uncertainty():
    image, seen = FINE.array[0, :192, :192], CLINICAL.array[0, :24, :24]
    images = [Shown("Clinical CT", seen), *(Shown(name, image) for name in ("Draw 1", "Draw 2", "Draw 3", "Truth"))]
    maps = [
        Shown("Mean of 16", image),
        Shown("SD of the draws", image, "spread"),
        Shown("|mean − truth|", image, "spread"),
    ]
    maps += [Shown("P(solid)", image, "share"), Shown("Solid in truth", image, "share")]
    fields = [Inset(row=4, column=4, size=24), Inset(row=10, column=20, size=24)]
    return draw_uncertainty([images, maps, images, maps], fields, CLINICAL, (-1000, 200))


def reliability(methods):
    groups = ["lung", "pooled", *TISSUES]
    rows = [("rank", group, at, 1 / 17, 1 / 17, 9) for group in groups for at in range(17)]
    rows += [("solid", "lung", at / 15, at / 16, at / 15, 9) for at in range(16)]
    table = pd.DataFrame([(case, "m", "pooled", "1", *row) for case in "abc" for row in rows], columns=CURVES)
    return draw_reliability({f"{name}/pooled": table for name in methods})


def efficiency(methods):
    table = metrics(methods, SHOWN)
    place = table["method"].map(list(methods).index)
    cost = {"gflop_per_pair": 2.5 * 1.7**place, "pairs_per_second": 40 / 1.5**place, "device": "cpu", "threads": 2}
    return draw_efficiency(table.assign(**cost))


def patches():
    places = [(z, row, column) for z in range(3) for row, column in itertools.product((2, 8, 14), (4, 12, 20))]
    index = pd.DataFrame(places, columns=["slice", "row", "column"]).assign(case="train1", modality="clinical", size=16)
    volume = Volume(np.repeat(CLINICAL.array, 3, 0), CLINICAL.spacing)
    return draw_patches(volume, np.ones(volume.shape), index, [0, 1, 2], (-1000.0, 200.0))


def metrics_validation():
    """Long numbers in every cell, of metrics with long names, and none."""
    values = {"psnr": 1234.5, "lesions_invented": -0.000123, "texture_in_airways": np.nan}
    rows = [
        ("seed 1", candidate, metric.protocol, metric.key, values.get(metric.key, 0.0571), 0.1 * place, "as good")
        for metric in METRICS
        if metric.protocol in ("no_reference", "truth") and "<" not in metric.key
        for place, candidate in enumerate(["truth", *CANDIDATES])
    ]
    return draw_metrics_validation(pd.DataFrame(rows, columns=VALIDATED))


def domain():
    rows = []
    for name, mean in (("clinical", -687.0), ("pooled_micro", -663.0)):
        rows += [(name, "mean", None, mean), (name, "sd", None, 253.0)]
        rows += [(name, "histogram", x, 0.25) for x in (-1000, -900, -800, -700)]
        rows += [(name, "spectrum", x, 4 - 2 * x) for x in (0.1, 0.3, 0.5)]
    for name in ("difference", "limit"):
        rows += [(name, kind, None, 1.5) for kind in ("mean", "sd", "histogram", "spectrum")]
    rows.append(("difference", "verdict", None, 1.0))
    return draw_domain(pd.DataFrame(rows, columns=["domain", "quantity", "x", "value"]).assign(unit=""))


def scanner():
    rows = [("", "stated", "sd", 30.0), ("", "stated", "mtf50", 8.5), ("", "stated", "pixel", 0.625)]
    rows += [("", "stated", "slice_sigma", 0.29)]
    for scan, sd in (("train1", 62.0), ("train2", 55.0)):
        known = {"sd": sd, "sd_low": 50.0, "sd_high": 70.0, "slice_sigma": 0.3, "streaks": 1.4, "direction": -4.0}
        rows += [(scan, "noise", quantity, value) for quantity, value in (known | {"pixel": 0.576}).items()]
        rows += [(scan, region, "sd", sd + more) for region, more in (("lung", 0), ("soft_tissue", 6))]
        rows += [(scan, "noise", "power", float(value)) for value in np.random.default_rng(0).uniform(0, 9, 256)]
    return draw_scanner(pd.DataFrame(rows, columns=["scan", "region", "quantity", "value"]))


def validation():
    rows = []
    for kernel in ("B30", "D45", "lung"):
        mtf = [(x, np.exp(-x / 6)) for x in np.arange(21.0)]
        rows += [("mtf", kernel, x, y, y - 0.03, y + 0.03, "1") for x, y in mtf]
        rows += [("nps", kernel, x, 300 * x, 280 * x, 320 * x, "HU2 mm2") for x in np.linspace(0.6, 7.6, 15)]
        rows += [
            ("mtf50", kernel, None, 3.493, 3.43, 3.57, "lp/cm"),
            ("mtf10", kernel, None, 5.893, 5.78, 6.02, "lp/cm"),
        ]
        rows.append(("nps_deviation", kernel, None, 2.02, 0, 5, "%"))
    for n in range(8):
        rows.append(("airway_diameter", f"generation {n}", n, 6.5 * 0.8**n, 5 * 0.8**n, 7 * 0.8**n, "mm"))
        rows.append(("length_to_diameter", f"generation {n}", n, 1.9 + 0.1 * n, 2, 4, "1"))
    for tissue, hu in (("parenchyma", -856), ("glass", -534), ("vessel", 45), ("tumour", 28), ("lumen", -1000)):
        rows.append(("hu", tissue, None, hu, hu - 20, hu + 20, "HU"))
    rows += [
        ("alveolar_volume", "foam", None, 4.184e6, 3.3e6, 4.8e6, "um3"),
        ("surface_density", "foam", None, 26.6, 28, 42, "mm2/mm3"),
        ("length_to_diameter", "conducting", None, 2.28, 2.5, 3.5, "1"),
        ("terminal_lumen", "terminal bronchiole", None, 0.702, 0.6, 0.72, "mm"),
    ]
    table = pd.DataFrame(rows, columns=CHECKED[:7]).assign(source="made up")
    within = (table["low"] <= table["measured"]) & (table["measured"] <= table["high"])
    return draw_validation(table.assign(verdict=np.where(within, "within", "outside")))


def volumes(count):
    row = ("a_long_name_of_a_case_7", "clinical CT", "4096 × 4096", "1082", "625 × 624", "600", "–")
    return draw_volumes(pd.DataFrame([row] * count, columns=list(TABLE_1)))


BEYOND = Train(start_steps=400, noise_gain=4, gradient_penalty=1, ema_decay=0.999)
FIGURES = {
    "network": lambda: draw_network(CycleGANMethod(), Train(), (32, 256), "proposed"),
    "network, beyond the paper": lambda: draw_network(CycleGANMethod(), BEYOND, (32, 256), "proposed"),
    "metrics": lambda: draw_metrics(metrics(FOUR, HEADLINE)),
    "metrics, many": lambda: draw_metrics(metrics(FOUR, [("truth", name) for name in TRUTH])),
    "metrics, many methods": lambda: draw_metrics(metrics(MANY, HEADLINE)),
    "comparison": lambda: comparison(FOUR),
    "comparison, many": lambda: comparison(MANY),
    "comparison, an SD": lambda: comparison(FOUR[:3], "SD of 16"),
    "losses": lambda: losses(FOUR),
    "losses, many": lambda: losses(MANY),
    "bronchioles": lambda: bronchioles(FOUR),
    "bronchioles, many": lambda: bronchioles(MANY),
    "hallucination": lambda: hallucination(FOUR),
    "hallucination, many": lambda: hallucination(MANY),
    "tiling": lambda: tiling(FOUR),
    "tiling, many": lambda: tiling(MANY),
    "uncertainty": uncertainty,
    "reliability": lambda: reliability(FOUR[:1]),
    "reliability, many": lambda: reliability(FOUR),
    "efficiency": lambda: efficiency(MANY[2:5]),
    "efficiency, many": lambda: efficiency(MANY),
    "patches": patches,
    "domain": domain,
    "scanner": scanner,
    "validation": validation,
    "metrics_validation": metrics_validation,
    "volumes": lambda: volumes(4),
    "volumes, many": lambda: volumes(60),
}


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_fit_for_print(name, tmp_path):
    figure = FIGURES[name]()
    assert not styled(faults)(figure)
    save(figure, tmp_path / "figure")
    page = read_page(tmp_path / "figure.pdf")
    assert round(page.width, 2) in (3.5, 7.16) and page.height < 8.51, "IEEE's columns and page, inches"
    assert page.fonts > 0 and page.embedded == page.fonts and b"Type3" not in page.kinds
    assert all(dpi >= 299 for dpi in page.dpi)
    assert bool(page.dpi) == (
        name.partition(",")[0] in ("comparison", "hallucination", "tiling", "patches", "scanner", "uncertainty")
    )


def test_what_a_reviewer_would_mark_is_found():
    figure = new_figure(COLUMN, 2)
    for x, words, size in ((0.5, "small", 5), (0.5, "smaller", 4), (0.98, "beyond the edge", 8)):
        figure.text(x, 0.5, words, fontsize=size)
    found = " ".join(faults(figure))
    assert "'small' in 5 pt" in found and "'beyond the edge' is cut by" in found
    assert "'small' and 'smaller' overlap" in found


@styled
def test_curves_of_one_panel_differ_in_grey_print():
    for figure, count in ((losses(FOUR), 4), (bronchioles(FOUR), 4)):
        styles = [
            handle.get_linestyle() + str(handle._dash_pattern) for handle in figure.legends[0].get_lines()[:count]
        ]
        assert len(set(styles)) == count == len(LINES)


def test_a_figure_taller_than_a_page_is_told(tmp_path, caplog):
    save(volumes(120), tmp_path / "figure")
    assert "a page 8.5; show fewer" in caplog.text
