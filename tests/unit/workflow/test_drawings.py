"""What figures are drawn from, by kind. Which figures there are: `test_plan.py`, with what they show."""

import pytest

from microsr.config import Experiment
from microsr.config.sheet import simulated_cases
from microsr.workflow.drawings import Drawings
from microsr.workflow.plan import Plan


@pytest.fixture
def drawings() -> Drawings:
    """Of two methods on simulated lungs."""
    settings = {"experiment": "x", "methods": {"proposed": {}, "bicubic": {"kind": "bicubic"}}}
    experiment = Experiment.model_validate(settings)
    cases = simulated_cases(experiment.simulate, "results/x/simulated")
    return Drawings(Plan(experiment, {case.case: case for case in cases}))


def test_a_comparison_is_drawn_from_the_scan_its_truth_and_a_volume_a_method_which_are_named(drawings):
    found = drawings.by_kind["comparison"]["comparison"]
    assert found.files["clinical"] == ["<results>/volumes/test1/clinical.ome.zarr"]
    assert found.files["truth"] == ["<results>/volumes/test1/truth.ome.zarr"]
    assert found.files["superresolved"] == [
        "<results>/superresolved/proposed/pooled/test1.ome.zarr",
        "<results>/superresolved/bicubic/none/test1.ome.zarr",
    ]
    assert found.names == {"superresolved": ["proposed", "bicubic"]}


def test_every_file_that_has_a_name_has_one_of_its_own(drawings):
    for found in (one for kind in drawings.by_kind.values() for one in kind.values()):
        assert all(len(set(names)) == len(found.files[flag]) for flag, names in found.names.items())


def test_a_kind_with_a_table_is_drawn_once_from_it(drawings):
    assert drawings.by_kind["volumes"]["volumes"].files == {"table": ["<results>/tables/volumes.csv"]}


def test_a_figure_is_called_what_its_drawing_says_else_what_its_kind_is_called(drawings):
    assert drawings.title("patches_train1_micro") == "patches of train1, micro"
    assert drawings.title("domain").startswith("domain check, ")
    assert drawings.title("metrics_truth") == "metrics truth"
