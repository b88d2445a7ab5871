"""What is said at the end of an experiment: where things are, and what was left out and why."""

import json
import os

import numpy as np
import pytest

from microsr.config import Experiment
from microsr.config.sheet import Case, simulated_cases
from microsr.evaluation.catalogue import find_metric
from microsr.evaluation.summary import interval
from microsr.workflow.end_of_run import PLACES, ending, failures, list_left_out, unused_gpu

EVERYTHING = {name: {"path": f"{name}.nii"} for name in ("clinical", "micro", "truth", "labels", "repeat")} | {
    "airways": "airways.csv"
}
SETTINGS = {
    "experiment": "x",
    "train": {"repeats": 3},
    "evaluate": {
        "further_protocols": ["distribution", "downsampled", "repeatability"],
        "validate_simulation": True,
        "validate_metrics": True,
    },
    "methods": {"proposed": {}, "other": {"train": {"network": "compact"}}, "bicubic": {"kind": "bicubic"}},
}  # fmt: skip


def told(settings=None, without=(), training=(), nulls=(), cases=("test1",)) -> list[str]:
    """What is left out of an experiment: test cases without some columns, and a training case without others."""
    known = {k: v for k, v in EVERYTHING.items() if k not in without}
    both = {k: EVERYTHING[k] for k in ("clinical", "micro") if k not in training}
    rows = [Case(case=name, split="test", **known) for name in cases] + [Case(case="train1", split="train", **both)]
    experiment = Experiment.model_validate(SETTINGS | (settings or {}))
    return list_left_out(experiment, {row.case: row for row in rows}, list(cases), list(nulls))


def test_an_experiment_that_makes_everything_leaves_nothing_out():
    assert told() == []


@pytest.mark.parametrize(
    ("change", "lines"),
    [
        ({"nulls": ["cyclegan"]}, ["method cyclegan: null in the configuration"]),
        ({"without": ["micro"]}, ["metrics downsampled of test1: no uCT in the sheet"]),
        ({"without": ["repeat"]}, ["metrics repeatability of test1: no second scan in the sheet"]),
        ({"without": ["truth"]}, [
            "metrics truth of test1: no known truth in the sheet",
            "bronchioles and hallucination of test1: truth, labels and airways are not all known",
        ]),
        ({"without": ["airways"]},
         ["bronchioles and hallucination of test1: truth, labels and airways are not all known"]),
        ({"without": ["repeat"], "cases": [f"c{n}" for n in range(7)]},
         ["metrics repeatability of c0, c1, c2, c3, c4 and 2 more: no second scan in the sheet"]),
        ({"without": ["repeat"], "settings": {"evaluate": {"further_protocols": ["distribution"]}}},
         ["metrics downsampled, repeatability: not asked for (evaluate.further_protocols)",
          "validation of the simulated lung and scanner: not asked for (evaluate.validate_simulation)",
          "validation of the metrics: not asked for (evaluate.validate_metrics)"]),
        ({"training": ["micro"]}, ["uCT of train1 in training: none in the sheet"]),
        ({"training": ["clinical"]}, ["clinical CT of train1 in training: none in the sheet"]),
        ({"settings": {"train": {"repeats": 2}}},
         ["95 % intervals: they need 3 trainings of each model, train.repeats is 2"]),
        ({"settings": {"superresolve": {"slices": "3:8"}}},
         ["slices: only 3:8 are super-resolved (superresolve.slices)"]),
        ({"settings": {"superresolve": {"slices": [3, 4]}}},
         ["slices: only [3, 4] are super-resolved (superresolve.slices)"]),
        ({"settings": {"methods": {"proposed": {}}}},
         ["figure efficiency: all trained methods have networks of one family, efficient"]),
        ({"settings": {"methods": {"bicubic": {"kind": "bicubic"}}}, "training": ["micro"]},
         ["models, and figures of trainings: no method is trained (methods.<name>.kind: cyclegan, for one)"]),
    ],
)  # fmt: skip
def test_what_is_left_out_is_told_with_the_reason(change, lines):
    assert told(**change) == lines


def test_a_registered_specimen_is_a_known_truth():
    experiment = Experiment.model_validate(SETTINGS)
    known = {k: v for k, v in EVERYTHING.items() if k not in ("truth", "labels", "airways")}
    row = Case(case="test1", split="test", micro_to_clinical="t.tfm", **known)
    lines = list_left_out(experiment, {"test1": row}, ["test1"], [])
    assert not [line for line in lines if "no known truth" in line] and any("bronchioles" in line for line in lines)


def test_cases_of_the_split_that_is_not_tested_on_are_told():
    experiment = Experiment.model_validate(SETTINGS)
    rows = simulated_cases(experiment.simulate.model_copy(update={"validation_cases": 2}), "x")
    lines = list_left_out(experiment, {row.case: row for row in rows}, ["test1"], [])
    assert lines == ["validation cases validation1, validation2: methods are tested on another split (evaluate.split)"]


@pytest.mark.parametrize("seeds", [2, 3, 4])
def test_intervals_need_as_many_seeds_as_the_summary_asks_for(seeds):
    lacking = any(line.startswith("95 % intervals") for line in told(settings={"train": {"repeats": seeds}}))
    assert lacking == np.isnan(interval(np.arange(float(seeds))[None], find_metric("truth", "psnr"))[0])


def test_the_end_says_where_things_are_that_are_there(tmp_path):
    results = tmp_path / "results/x"
    for place in PLACES.values():
        path = results / place
        (path.parent if path.suffix else path).mkdir(parents=True, exist_ok=True)
        if path.suffix:
            path.touch()
    text = ending("x", results, 12000, [])
    assert text.splitlines()[0] == f"Experiment x is finished; this run took 3 h 20 min. In {results}:"
    assert [line.split() for line in text.splitlines()[1:]] == [
        ["report", "report.html"], ["comparison", "figures/comparison.png"], ["figures", "figures/"],
        ["metrics", "tables/summary.csv"], ["models", "models/"], ["volumes", "superresolved/"],
    ]  # fmt: skip
    assert "report" not in ending("x", results, 1, [], without=["report"]), "this run did not make it"
    (results / "report.html").unlink()
    (results / "models").rmdir()
    text = ending("x", results, 1, ["a: b", "c: d"])
    assert "report" not in text and "models" not in text
    assert text.endswith("superresolved/\nLeft out:\n  a: b\n  c: d")


def test_a_gpu_that_was_not_used_is_told(tmp_path):
    def record(name, content):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps({"speed": {"device": content[0]}}))
        return path

    cpu, cuda = record("a", ["cpu"]), record("b", ["cuda"])
    broken = [record("c", "{"), record("d", "{}"), tmp_path / "missing", record("e", "[]")]
    assert unused_gpu("auto", [cpu, cuda, *broken]) == ["GPU: 1 of 2 models were trained on the CPU; PyTorch sees none"]
    assert unused_gpu("cpu", [cpu, cpu]) == ["GPU: 2 of 2 models were trained on the CPU; compute.device is cpu"]
    assert unused_gpu("auto", [cuda, *broken]) == unused_gpu("cpu", []) == []


def test_what_failed_is_what_the_logs_of_this_run_end_with(tmp_path):
    began = 1_000_000.0
    logs = {
        "train/a.log": "12:00:00 INFO begins\n12:00:01 ERROR error: a.npy: is empty; extract the patches again\n",
        "b.log": "12:00:01 ERROR error: overcome\n12:00:02 INFO went on\n",
        "c.log": "",
        "d.log": "12:00:01 ERROR error: b\xe9\n",
        "e.txt": "12:00:01 ERROR error: no log\n",
        "old.log": "12:00:01 ERROR error: of the run before\n",
    }
    for name, text in logs.items():
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(text.encode("latin-1"))
        os.utime(file, (began, began - 1 if name == "old.log" else began))
    assert failures(tmp_path, began) == [
        f"Failed: b\ufffd [{tmp_path / 'd.log'}]",
        f"Failed: a.npy: is empty; extract the patches again [{tmp_path / 'train/a.log'}]",
    ]
    assert failures(tmp_path / "none", began) == []
