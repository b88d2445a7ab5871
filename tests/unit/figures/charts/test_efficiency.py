"""The efficiency figure sets the metrics of the table against what run.json says that a training cost."""

import itertools
import json

import numpy as np
import pandas as pd
import pytest

from microsr import cli
from microsr.core.errors import UserError
from microsr.evaluation.tables import COLUMNS, write_table
from microsr.figures.charts.efficiency import SHOWN, draw_efficiency, make_efficiency

GFLOP = {"resnet": 120.0, "efficient": 9.0, "compact": 2.5}
BEST = {"resnet": 1.0, "efficient": 1.1, "compact": 2.0}


def write_run(path, network, seed, seconds=0.5, machine=("cpu", 1)):
    facts = {
        "settings": {"train": {"network": network}, "seed": seed},
        "arithmetic": {"gflop_per_pair": GFLOP[network]},
        "speed": {"pairs_per_second": 1 / seconds, "device": machine[0], "threads": machine[1]},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(facts))


@pytest.fixture
def experiment(tmp_path):
    """Three networks, three seeds, two cases and a bicubic; the table and the runs by name."""
    rows, runs = [], {}
    for network, seed in itertools.product(GFLOP, (1, 2, 3)):
        path = tmp_path / network / str(seed) / "run.json"
        write_run(path, network, seed, seconds=GFLOP[network] ** 0.6 / 40 * (1 + 0.1 * seed))
        runs.setdefault(f"{network}/pooled", []).append(path)
        for (protocol, metric), case in itertools.product(SHOWN, "ab"):
            value = BEST[network] + 0.1 * seed + (1 if case == "a" else -1)
            rows.append(
                (case, network, "pooled", str(seed), protocol, metric, value, "HU" if "rmse" in metric else "1")
            )
    rows += [("a", "bicubic", "none", "none", protocol, metric, 40.0, "1") for protocol, metric in SHOWN]
    table = tmp_path / "metrics.csv"
    pd.DataFrame(rows, columns=COLUMNS).to_csv(table, index=False)
    return table, runs


@pytest.fixture
def drawn(experiment, tmp_path, monkeypatch):
    """The figure of that experiment."""
    figures = []
    monkeypatch.setattr("microsr.figures.charts.efficiency.save", lambda figure, output: figures.append(figure))
    make_efficiency(*experiment, tmp_path / "f", tmp_path / "costs.csv")
    return figures[0]


def marks(axes):
    """Mean of each model, by its name: x and y."""
    lines = {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}
    return {name: (line.get_xdata()[0], line.get_ydata()[0]) for name, line in lines.items()}


def test_each_metric_stands_against_arithmetic_and_against_time(drawn):
    assert len(drawn.axes) == 2 * len(SHOWN)
    arithmetic, time = drawn.axes[:2]
    assert arithmetic.get_title(loc="left") == "Kernel distance"
    assert (arithmetic.get_xscale(), time.get_xscale()) == ("log", "log")
    assert {name: x for name, (x, _) in marks(arithmetic).items()} == pytest.approx(
        {f"{network}/pooled": gflop for network, gflop in GFLOP.items()}
    )
    assert (arithmetic.get_xlabel(), time.get_xlabel()) == ("GFLOP per pair", "s per pair")
    assert drawn.texts[0].get_text().endswith("Time: cpu, 1 thread.")
    assert arithmetic.get_ylim() == time.get_ylim()


def test_a_mark_is_the_mean_over_cases_and_seeds_and_its_line_the_interval_over_seeds(drawn):
    axes = drawn.axes[0]
    assert marks(axes)["compact/pooled"][1] == pytest.approx(BEST["compact"] + 0.2)
    spans = [np.ptp(line.get_ydata()) for line in axes.lines if len(set(line.get_xdata())) == 1]
    assert max(spans) == pytest.approx(2 * 4.302653 * 0.1 / np.sqrt(3)), "Student's t over three values of SD 0.1"


def test_what_is_not_trained_is_left_out(drawn):
    assert all(axes.get_ylim()[1] < 40 for axes in drawn.axes)


def shown_ticks(axis):
    """Labels of the ticks within the axis' limits."""
    low, high = sorted(axis.get_view_interval())
    return [
        tick.label1 for tick in axis.get_major_ticks() if tick.label1.get_visible() and low <= tick.get_loc() <= high
    ]


@pytest.mark.parametrize("number", [1, 3, 9])
def test_nothing_written_overlaps_or_leaves_the_figure(number):
    """Names of methods whose quality and cost are all but the same are kept apart."""
    device = ("NVIDIA H100 80GB HBM3", 16)
    rows = [
        ("a", f"method_{k}", "pooled", "1", *kind, 1 + 0.001 * k, "HU", "efficient", 5 + 0.01 * k, 2.0, *device)
        for k in range(number)
        for kind in SHOWN
    ]
    costs = ["network", "gflop_per_pair", "pairs_per_second", "device", "threads"]
    figure = draw_efficiency(pd.DataFrame(rows, columns=[*COLUMNS, *costs]))
    figure.draw_without_rendering()
    boxes = []
    for axes in figure.axes:
        ticks = [tick for axis in (axes.xaxis, axes.yaxis) for tick in shown_ticks(axis)]
        texts = [*axes.texts, axes.xaxis.label, axes._left_title, axes.yaxis.get_offset_text(), *ticks]
        boxes += [(t.get_text(), t.get_window_extent()) for t in texts if t.get_text()]
    boxes += [(t.get_text(), t.get_window_extent()) for t in figure.texts]
    for text, box in boxes:
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height, text
    for (one, a), (other, b) in itertools.combinations(boxes, 2):
        assert not a.overlaps(b), f"{one} / {other}"


def test_machines_that_differ_are_not_passed_off_as_one(experiment, tmp_path, monkeypatch):
    table, runs = experiment
    write_run(runs["compact/pooled"][0], "compact", 1, machine=("cuda", 1))
    figures = []
    monkeypatch.setattr("microsr.figures.charts.efficiency.save", lambda figure, output: figures.append(figure))
    make_efficiency(table, runs, tmp_path / "f", tmp_path / "costs.csv")
    assert figures[0].texts[0].get_text().endswith("Time: on machines that differ.")


def test_the_command_writes_the_figure_and_the_table_of_costs(experiment, tmp_path):
    table, runs = experiment
    named = [f"{name}={path}" for name, paths in runs.items() for path in paths]
    output = tmp_path / "figures/efficiency"
    costs = str(tmp_path / "c/costs.csv")
    cli.main([
        "figures", "efficiency", "--table", str(table), "--runs", *named, "--costs", costs, "--output", str(output),
    ])  # fmt: skip
    assert output.with_suffix(".png").stat().st_size > 1000 and output.with_suffix(".pdf").stat().st_size > 1000
    costs = pd.read_csv(tmp_path / "c/costs.csv")
    assert list(costs)[:6] == ["method", "network", "training_set", "seed", "gflop_per_pair", "pairs_per_second"]
    assert len(costs) == 9 and set(costs["gflop_per_pair"]) == set(GFLOP.values())
    assert json.loads((tmp_path / "figures/efficiency.run.json").read_text(encoding="utf-8"))["metrics"] == [
        m for _, m in SHOWN
    ]


def test_a_run_that_does_not_say_what_it_cost_is_named(experiment, tmp_path):
    table, runs = experiment
    last = runs["compact/pooled"][-1]
    last.write_text('{"settings": {"train": {"network": "compact"}, "seed": 3}}')
    with pytest.raises(UserError, match=r"compact/3/run\.json does not say 'speed' of the training"):
        make_efficiency(table, runs, tmp_path / "f", tmp_path / "costs.csv")
    last.write_text("no record")
    with pytest.raises(UserError, match=r"compact/3/run\.json does not say what the training cost"):
        make_efficiency(table, runs, tmp_path / "f", tmp_path / "costs.csv")


def test_a_table_without_the_metrics_is_refused(experiment, tmp_path):
    write_table(tmp_path / "odd.csv", ("a", "resnet", "pooled", "1"), [("truth", "ssim", 0.5, "1")])
    with pytest.raises(UserError, match=r"odd\.csv has none of these metrics .*spectrum_distance"):
        make_efficiency(tmp_path / "odd.csv", experiment[1], tmp_path / "f", tmp_path / "costs.csv")
