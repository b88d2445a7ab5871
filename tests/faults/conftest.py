"""The steps of the finished workflow, and what runs them."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import SimpleITK as sitk
from steps import Runner, Step, contents, finished_steps

APART = {f"results/smoke/{name}" for name in (".state", "logs", "benchmarks")}
"""Folders of an experiment that hold no results."""


@dataclass(frozen=True)
class Steps:
    """A command of every rule, by its name, and the folders in which what they read is to be found."""

    by_rule: dict[str, Step]
    made: tuple[Path, ...]

    def prepare(self, rule: str, folder: Path) -> Step:
        """A folder with the inputs of a rule; its step."""
        made = self.made[::-1] if rule == "write_report" else self.made  # whole folders: of the workflow itself
        self.by_rule[rule].prepare(folder, *made)
        return self.by_rule[rule]

    def whole(self, rule: str) -> dict[str, Any]:
        """What the rule makes where nothing comes in between."""
        step = self.by_rule[rule]
        return next(held for root in self.made if len(held := contents(step, root)) == len(step.outputs))


def steps_of_choices(evaluated: tuple[str, ...], trained: tuple[str, ...]) -> list[Step]:
    """What smoke has no settings for: a choice among the models of a training, its table, and that of a search.

    evaluated: the command that measured a test case, which stands in for a validation case. trained: files of the
    training.
    """

    def given(flag: str) -> list[str]:
        words = list(evaluated[evaluated.index(flag) + 1 :])
        return words[: next((n for n, word in enumerate(words) if word.startswith("--")), len(words))]

    kinds = ("clinical", "micro", "truth", "labels", "airways")
    volumes = {kind: given(f"--{kind}") for kind in kinds}
    model = next(path for path in trained if path.endswith("generator.pt"))
    folder = model.removesuffix("generator.pt")
    case = ["--case", "name=v", *(f"{kind}={path}" for kind, paths in volumes.items() for path in paths)]
    names = ["--method", "proposed", "--training_set", "pooled", "--seed", "1"]
    command = ["evaluate", "choose", *names, "--candidates", model, *case, "--by", "truth.psnr", "--slices", "[1]"]
    command += ["--output", f"{folder}chosen.pt", "--table", f"{folder}choice.csv"]
    outputs = [f"{folder}{name}" for name in ("choice.csv", "choice.run.json", "chosen.pt", "chosen.run.json")]
    inputs = (model, *(path for paths in volumes.values() for path in paths))
    tables = "results/smoke/tables"
    metrics, choice, search = (f"{tables}/{name}.csv" for name in ("metrics", "choice", "search"))
    trials = json.dumps({"proposed": {"proposed": {}, "cyclegan": {"losses.cycle": 10}}})
    return [
        Step("choose_model", tuple(command), inputs, tuple(outputs)),
        Step(
            "tabulate_choices", ("evaluate", "choices", "--inputs", outputs[0], "--output", choice),
            tuple(outputs[:2]), (choice, f"{tables}/choice.run.json"),
        ),
        Step(
            "tabulate_search",
            ("evaluate", "search", "--table", metrics, "--trials", trials, "--by", "truth.psnr", "--output", search),
            (metrics,), (search, f"{tables}/search.run.json"),
        ),
    ]  # fmt: skip


@pytest.fixture(scope="session")
def runner(tmp_path_factory) -> Runner:
    return Runner(tmp_path_factory.mktemp("said"))


@pytest.fixture(scope="session")
def steps(finished, runner, tmp_path_factory) -> Steps:
    """Those of the finished workflow, and those that its settings leave out."""
    found, made = finished_steps(finished.folder), tmp_path_factory.mktemp("parts")
    train = found["train"]
    records = [
        path.replace(".npy", ".run.json") for path in train.inputs if path.endswith(".npy")
    ]  # read, not declared
    often = (*train.command, "--checkpoint_minutes", "1e-9")
    found["train"] = replace(train, command=often, inputs=(*train.inputs, *records))

    results = finished.folder / "results/smoke"
    folders = [f"results/smoke/{path.name}" for path in sorted(results.iterdir()) if path.is_dir()]
    read = {"draw_panels": ["results/smoke/.state"], "write_report": ["report", *sorted({*folders} - APART)]}
    for (
        rule,
        more,
    ) in read.items():  # read, not declared: panels of the trainings; captions, and records back to the originals
        found[rule] = replace(found[rule], inputs=(*more, *found[rule].inputs))

    whole = found["superresolve"]
    volume, record = sorted(whole.outputs)
    stem = volume.removesuffix(".ome.zarr")
    how = ("--slices", "[0, 1]", "--parts", "2", "--part")
    parts = [whole.making("superresolve_part", f"{stem}.part{n}.ome.zarr", *how, str(n)) for n in (1, 2)]
    volumes, records = zip(*(sorted(part.outputs) for part in parts), strict=True)
    gathered = f"{stem}.gathered"
    others = [
        Step(
            "gather", ("gather", *volumes, "--output", f"{gathered}.ome.zarr"), (*volumes, *records),
            (f"{gathered}.ome.zarr", f"{gathered}.run.json"),
        )
    ]  # fmt: skip
    for rule, name in (("export", f"{stem}.nii.gz"), ("export_dicom", f"{stem}_dicom")):
        others.append(Step(rule, ("export", volume, "--output", name), (volume, record), (name, f"{name}.run.json")))
    figure, table = "results/smoke/figures/efficiency", "results/smoke/tables/{}.csv"
    run = "results/smoke/models/proposed/pooled/run.json"
    costs = table.format("efficiency")
    command = ["figures", "efficiency", "--table", table.format("metrics"), "--runs", f"proposed/pooled={run}"]
    command += ["--costs", costs, "--output", figure]
    outputs = [
        costs,
        costs.replace(".csv", ".run.json"),
        *(f"{figure}.{ending}" for ending in ("png", "pdf", "run.json")),
    ]
    others.append(Step("draw_efficiency", tuple(command), (table.format("metrics"), run), tuple(outputs)))
    micro = "results/smoke/simulated/train1/micro.nii.gz"
    scan = micro.replace("micro", "scan")
    command = ("scan", micro, "--case", "train1", "--seed", "1", "--output", scan)
    others.append(Step("scan_training_case", command, (micro,), (scan, f"{scan}.run.json")))
    place, case = "results/smoke/place.tfm", "results/smoke/volumes/train1"
    (made / place).parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteTransform(sitk.Euler3DTransform(), str(made / place))  # the uCT is where the CT is
    inputs = (*(f"{case}/{of}.{kind}" for of in ("micro", "clinical") for kind in ("ome.zarr", "run.json")), place)
    outputs = [f"{case}/{of}.{kind}" for of in ("registered", "thick") for kind in ("ome.zarr", "run.json")]
    command = ["volumes", "registered", "--case", "train1", "--micro", inputs[0], "--clinical", inputs[2]]
    command += ["--micro_to_clinical", place, "--output", outputs[0], "--thick_output", outputs[2]]
    others.append(Step("bring_in_specimen", tuple(command), inputs, tuple(outputs)))
    others += steps_of_choices(found["evaluate_known"].command, found["train"].outputs)
    for step in [*parts, *others]:
        found[step.rule] = step
        step.prepare(made, made, finished.folder)
        ended = runner.run(step, made)
        assert ended.code == 0, ended.said
    return Steps(found, (made, finished.folder))
