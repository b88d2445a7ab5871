"""The catalogue of metrics: complete, in agreement with what is measured, and heard by whoever tells of a metric."""

import ast
import re
from collections import Counter
from pathlib import Path

import pandas as pd
import pytest

import microsr
from microsr.core.errors import UserError
from microsr.evaluation import metric_tables
from microsr.evaluation.bronchioles import curve_rows
from microsr.evaluation.catalogue import HEADLINE, METRICS, PROTOCOLS, Best, check_metrics, find_metric, find_protocol
from microsr.evaluation.collect import collect
from microsr.evaluation.summary import summarise
from microsr.evaluation.tables import COLUMNS, write_table
from microsr.figures.charts.metrics import draw_metrics

KEYS = [(metric.protocol, metric.key) for metric in METRICS]
SOURCE = Path(microsr.__file__).parent
MODULES = {
    path.relative_to(SOURCE).with_suffix("").as_posix(): path.read_text(encoding="utf-8")
    for path in SOURCE.rglob("*.py")
}


def test_each_metric_is_described_once_and_in_whole_sentences():
    assert len(set(KEYS)) == len(KEYS)
    for metric in METRICS:
        assert metric.name and metric.unit and metric.about.endswith(".") and metric.fooled.endswith("."), metric
        assert max(len(metric.about), len(metric.fooled)) <= 130, metric
        assert "`" not in metric.sentence, "the report shows it as it is"
    names = Counter((metric.protocol, metric.name) for metric in METRICS if "<" not in metric.key)
    assert max(names.values()) == 1


def test_each_protocol_has_metrics_and_a_reading():
    assert {protocol for protocol, _ in KEYS} == {protocol.key for protocol in PROTOCOLS}
    assert all(p.title and p.short and p.reading.endswith(".") for p in PROTOCOLS)
    assert set(HEADLINE) <= set(KEYS)


@pytest.mark.parametrize(
    ("protocol", "key", "better"),
    [
        ("no_reference", "consistency_rmse", "nearest to the truth's score"),
        ("no_reference", "consistency_scan_rmse", "nearest to the truth's score"),
        ("no_reference", "texture_in_vessels", "nearest to the truth's score"),
        ("no_reference", "texture_in_airways", "nearest to the truth's score"),
        ("no_reference", "checkerboard", "↓ down to the truth's score"),
        ("no_reference", "spectrum_distance", "↓ down to the truth's score"),
        ("distribution", "kernel_distance_tissue_features", "↓ down to the truth's score"),
        ("repeatability", "disagreement_pooled_rmse", "↓ lower is better"),
        ("repeatability", "input_disagreement_rmse", "a reference, no score"),
        ("distribution", "frechet_distance_tissue_features_floor", "a reference, no score"),
        ("distribution", "kernel_distance_tissue_features_floor", "a reference, no score"),
        ("no_reference", "mean_shift", "nearer to 0 is better"),
        ("truth", "psnr", "↑ higher is better"),
        ("truth", "smallest_bronchiole_low", "↓ lower is better"),
        ("truth", "rmse_glass", "↓ lower is better"),
        ("truth", "ssim_glass", "↑ higher is better"),
        ("truth", "bronchiole_detected_0.5-0.7", "↑ higher is better"),
    ],
)
def test_figure_and_report_say_the_same_of_a_metric(protocol, key, better):
    unit = find_metric(protocol, key).unit
    rows = [
        (case, method, "none", "none", protocol, key, value, unit)
        for method, value in (("bicubic", 1.0), ("b", 3.0))
        for case in "cde"
    ]
    (axes,) = draw_metrics(pd.DataFrame(rows, columns=COLUMNS)).axes
    assert [text.get_text() for text in axes.texts if text.get_position() == (0, 3)] == [
        f"{better}, {find_protocol(protocol).short}"
    ]
    (table,) = metric_tables.tables(summarise(pd.DataFrame(rows, columns=COLUMNS)), protocol)
    assert table.rows[0].better == better
    marked = [cell.best for cell in table.rows[0].cells]
    assert any(marked) == (find_metric(protocol, key).best not in (Best.TRUTH, Best.NONE))


def test_a_member_of_a_family_is_named_after_it():
    assert find_metric("truth", "rmse_glass").name == "RMS error, glass"
    assert find_metric("truth", "bronchiole_detected_0.5-0.7").name == "Bronchioles found, 0.5-0.7"
    assert find_metric("truth", "smallest_bronchiole_low").name == "Smallest bronchiole, low end of the interval"


@pytest.mark.parametrize(
    "key", ["rmse_", "rmse_a_b", "bronchiole_detected_0.5", "psnr_x", "PSNR", "ps", "", "rmse_<tissue>"]
)
def test_what_is_no_metric_is_found_nowhere(key):
    with pytest.raises(UserError, match="has no metric"):
        find_metric("truth", key)


def test_metrics_of_another_protocol_and_protocols_that_there_are_not():
    with pytest.raises(UserError, match="the protocol 'downsampled' has no metric 'small_lost'"):
        find_metric("downsampled", "small_lost")
    with pytest.raises(UserError, match="no protocol is called 'odd', but no_reference, truth, "):
        find_protocol("odd")


def emitted() -> set[tuple[str, str, str]]:
    """Protocol, metric and unit as the modules of the protocols write them: constants, or f-strings whose gaps are
    <>.
    """

    def text(node: ast.expr) -> str | None:
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            return node.value
        if isinstance(node, ast.JoinedStr):
            return "".join(str(part.value) if isinstance(part, ast.Constant) else "<>" for part in node.values)
        return None

    found = set()
    for protocol in (protocol.key for protocol in PROTOCOLS):
        for node in ast.walk(ast.parse(MODULES[f"evaluation/protocols/{protocol}"])):
            # Name, value and unit; in truth.py the protocol is put before them later.
            if isinstance(node, ast.Tuple) and len(node.elts) == (3 if protocol == "truth" else 4):
                name, _, unit = node.elts[-3:]
                if text(name) and text(unit):
                    found.add((protocol, text(name), text(unit)))
    return found


def test_what_the_protocols_measure_is_what_is_described():
    """In either direction, with the same unit."""
    crossings = pd.DataFrame({"slice": [0], "airway": [0], "diameter_mm": [1.0], "detected": [1]})
    found = emitted() | {("truth", name, unit) for name, _, unit in curve_rows(crossings)}
    described = {(m.protocol, re.sub(r"<\w+>", "<>", m.key), m.unit) for m in METRICS}
    families = {("truth", re.sub(r"\d\.\d-\d\.\d", "<>-<>", name), unit) for _, name, unit in found if "-" in name}
    found = {one for one in found if "-" not in one[1]} | families
    distances = {("distribution", f"<>_tissue_features{end}", "1") for end in ("", "_floor")}
    assert distances <= found, "distribution.py names each for two distances"
    found -= distances
    found |= {
        ("distribution", f"{kind}_distance_tissue_features{end}", "1")
        for kind in ("frechet", "kernel")
        for end in ("", "_floor")
    }
    assert found == described


def test_only_described_metrics_in_their_unit_come_into_the_table(tmp_path):
    names = ("c", "m", "pooled", "1")
    write_table(tmp_path / "a.csv", names, [("truth", "psnr", 1.0, "dB"), ("truth", "rmse_glass", 1.0, "HU")])
    collect([tmp_path / "a.csv"], tmp_path / "all.csv")
    for row, said in [
        (("truth", "null_rmse", 1.0, "1"), "b.csv: 'null_rmse' of the protocol 'truth' is in '1', not in 'HU'"),
        (("truth", "niceness", 1.0, "1"), "b.csv: the protocol 'truth' has no metric 'niceness'"),
    ]:
        write_table(tmp_path / "b.csv", names, [row])
        with pytest.raises(UserError, match=re.escape(said)):
            collect([tmp_path / "a.csv", tmp_path / "b.csv"], tmp_path / "more.csv")
    assert not (tmp_path / "more.csv").exists()
    check_metrics([("truth", "psnr", "dB")])


def test_nobody_else_says_which_way_is_better():
    """Not in code, that is: docstrings of metrics may."""
    words = re.compile(r"(higher|lower|nearer to 0) is better|Best\.[A-Z]+")
    for name, text in MODULES.items():
        told = {
            node.value
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and words.search(node.value)
        }
        documented = {
            node.value.value
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        }
        assert name == "evaluation/catalogue" or told <= documented, name
