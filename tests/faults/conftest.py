"""The steps of the finished workflow, and what runs them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
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
    for step in [*parts, *others]:
        found[step.rule] = step
        step.prepare(made, made, finished.folder)
        ended = runner.run(step, made)
        assert ended.code == 0, ended.said
    return Steps(found, (made, finished.folder))
