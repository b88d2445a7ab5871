"""The experiments of the evaluation ask for what they say, and the smallest of them makes its tables."""

import csv
from pathlib import Path
from typing import Any

import pytest
import yaml

from microsr.config import load
from microsr.config.sheet import simulated_cases
from microsr.workflow.plan import Plan

ROOT = Path(__file__).parent.parent.parent
METHODS = ["nearest", "bicubic", "regression", "posterior", "posterior_mean"]
METHODS += ["proposed_paper", "proposed_no_cycle", "proposed", "cyclegan"]


def merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Settings laid over others, as Snakemake does it."""
    both = below | above
    return both | {
        key: merged(below[key], above[key])
        for key in below.keys() & above.keys()
        if isinstance(below[key], dict) and isinstance(above[key], dict)
    }


def plan_of(name: str) -> Plan:
    settings = [
        yaml.safe_load((ROOT / file).read_text(encoding="utf-8"))
        for file in ("config.yaml", f"experiments/{name}.yaml")
    ]
    experiment = load(merged(*settings))
    tested = "leave_one_out" in experiment.protocols
    return Plan(experiment, {case.case: case for case in simulated_cases(experiment.simulate, "x", tested)})


def test_the_evaluation_has_as_many_lungs_seeds_methods_and_scanners_as_it_says():
    made = plan_of("evaluation")
    assert len({case for case in made.held_out if made.cases[case].condition is None}) == 8
    assert made.experiment.train.repeats == 3 and set(made.experiment.protocols) == {
        "pooled",
        "per_case",
        "leave_one_out",
    }
    assert set(made.conditions) == {"D45", "B30", "half_noise", "twice_noise"}
    assert {len(cases) for cases in made.conditions.values()} == {3}
    assert set(made.further_specimens) == {"random", "tumour", "denser"}
    specimens = [made.experiment.simulate.further_specimens[name] for name in made.further_specimens]
    assert {"micro_offset_hu": 60.0} in specimens and {"specimen": "tumour"} in specimens
    lungs = {name: len(made.tested_on(name)) for name in ("case-train1", "without-train1", "specimen-random")}
    assert lungs == {"case-train1": 3, "without-train1": 1, "specimen-random": 3}
    assert {"train1", "test8"} <= set(made.known_cases), "a lung that is left out has its truth"
    assert set(METHODS) <= set(made.experiment.methods)
    assert made.choosing_cases == ["validation1"] and "validation1" not in made.superresolved_cases
    assert {made.experiment.training_of(method).start_steps for method in made.trained_methods} == {0}


def test_the_small_evaluation_compares_the_same_methods_with_the_same_weights():
    made, small = plan_of("evaluation"), plan_of("evaluation_small")
    assert set(small.experiment.methods) == set(METHODS)
    for name, method in small.experiment.methods.items():
        assert made.experiment.methods[name] == method, name
    assert set(small.conditions) <= set(made.conditions) and len(small.conditions) == 2
    assert set(small.further_specimens) <= set(made.further_specimens) and len(small.further_specimens) == 2
    assert len([case for case in small.held_out if small.cases[case].condition is None]) == 3
    assert set(small.tables) <= set(made.tables)


def test_only_the_cycle_differs_between_the_two_readings_of_the_paper():
    methods = plan_of("evaluation").experiment.methods
    paper, other = methods["proposed_paper"].losses, methods["proposed_no_cycle"].losses
    assert paper.model_copy(update={"cycle": 0.0}) == other and paper.cycle == 1
    assert {weight for key, weight in paper if key in ("adversarial", "cycle", "downsample", "upsample")} == {1}


@pytest.mark.workflow
@pytest.mark.nightly
def test_the_smallest_evaluation_makes_its_tables(workflow, tmp_path):
    """The small one on lungs of 30 mm, with trainings of two steps, and a choice among two models."""
    tiny = {
        "simulate": {
            "training_cases": 2, "validation_cases": 1, "test_cases": 2, "clinical_size": 48, "clinical_slices": 3,
            "micro_spacing_mm": 0.07, "specimen_mm": 16,
        },
        "patches": {"clinical_size": 16, "micro_size": 128, "per_case": 8, "inside": 0.8},
        "train": {"repeats": 1, "candidates": 2, "patches_per_case": 4},
        "superresolve": {"slices": [1]},
    }  # fmt: skip
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny))
    results = "results/evaluation_small/tables"
    wanted = ["metrics.md", "choice.csv", "conditions/B30/metrics.md", "conditions/twice_noise/summary.csv"]
    done = workflow.snakemake(
        *(f"{results}/{name}" for name in wanted),
        "--cores", "2", "--configfile", "experiments/evaluation_small.yaml", str(tmp_path / "tiny.yaml"),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]
    tables = workflow.folder / results
    for table in ("summary.csv", "conditions/B30/summary.csv"):
        with (tables / table).open(encoding="utf-8") as stream:
            rows = list(csv.DictReader(stream))
        assert {row["method"] for row in rows} >= set(METHODS)
        assert {row["seeds"] for row in rows if row["training_set"] == "pooled"} == {"1"}
        assert {row["cases"] for row in rows} == {"2"} and {row["split"] for row in rows} == {"test"}
    with (tables / "choice.csv").open(encoding="utf-8") as stream:
        chosen = [row for row in csv.DictReader(stream) if row["chosen"]]
    assert len(chosen) == 6 * 3, "one of each training: six methods, pooled and on two further specimens"
