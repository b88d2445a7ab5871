"""Versions of code: what counts is what modules do, not where they lie, nor what they are called."""

import re
import shutil
from pathlib import Path

import pytest

from microsr.core.code_version import SOURCE, STEPS, code_version, decisive_modules, fingerprint, step_version
from microsr.physics import scanner

PROGRAM = {
    "step.py": """
        \"\"\"A step.\"\"\"
        from microsr import config, sums
        from microsr.means import mean
        FURTHER = {"median": "microsr.medians:median"}
        OTHER = "microsr.unrelated"
        NAMED = dict(help="What it is.", kind="sum")
        def main(values):
            return sums.add(values) + mean(values) + config.DEFAULT
        """,
    "sums.py": "def add(values):\n    return sum(values)\n",
    "means.py": "def mean(values):\n    return sum(values) / len(values)\n",
    "medians.py": "def median(values):\n    return sorted(values)[len(values) // 2]\n",
    "unrelated.py": "A = 1\n",
    "config.py": "DEFAULT = 1\n",
    "__init__.py": "",
}


@pytest.fixture
def version(tmp_path):
    """Gives the version of microsr/step.py in a program of these files."""
    numbers = iter(range(100))

    def of(module="microsr.step", alone=False, **changed):
        folder = tmp_path / f"{next(numbers)}/microsr"
        for name, code in {**PROGRAM, **changed}.items():
            if code is not None:
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_text(re.sub(r"(?m)^ {8}", "", code), encoding="utf-8")
        return fingerprint(module, alone, source=folder)

    return of


def test_a_module_alone_has_a_version_that_its_helpers_do_not_change(version):
    """As the command that draws all figures: an edit of one figure's module redraws that figure only."""
    before = version(alone=True)
    assert version(alone=True, **edited("sums.py", "sum(values)", "sum(values) + 1")) == before
    assert version(alone=True, **edited("step.py", "+ mean", "- mean")) != before


def edited(name, old, new):
    assert old in PROGRAM[name]
    return {name: PROGRAM[name].replace(old, new)}


def test_an_edit_of_a_module_that_a_step_reaches_changes_its_version(version):
    before = version()
    assert version() == before
    for change in (
        edited("step.py", "+ mean", "- mean"),
        edited("sums.py", "sum(values)", "sum(values) + 1"),
        edited("means.py", "len(values)", "2"),
        edited("medians.py", "// 2", "// 3"),
        edited("step.py", 'kind="sum"', 'kind="mean"'),
    ):
        assert version(**change) != before


def test_what_decides_nothing_is_not_in_it(version):
    before = version()
    for change in (
        edited("config.py", "1", "2"),
        edited("unrelated.py", "1", "2"),
        edited("step.py", '"""A step.""""'[:-1], '"""The step."""'),
        edited("sums.py", "    return", "    # a remark\n    return"),
        edited("step.py", 'help="What it is."', 'help="What it was."'),
    ):
        assert version(**change) == before


def test_a_module_that_is_moved_or_renamed_keeps_it(version):
    before = version()
    moved = PROGRAM["step.py"].replace("sums", "adding").replace("from microsr import config, adding", "IMPORTS")
    moved = moved.replace("IMPORTS", "from microsr.arithmetic import adding\n        from microsr import config")
    moved = moved.replace("microsr.means", "microsr.arithmetic.averages").replace("microsr.medians", "microsr.robust")
    moved = moved.replace("microsr.unrelated", "microsr.arithmetic.unrelated")
    change = {
        "step.py": None,
        "steps/first.py": moved,
        "arithmetic/__init__.py": "",
        "arithmetic/adding.py": PROGRAM["sums.py"],
        "arithmetic/averages.py": PROGRAM["means.py"],
        "arithmetic/unrelated.py": PROGRAM["unrelated.py"],
        "robust.py": PROGRAM["medians.py"],
    }
    assert version("microsr.steps.first", **change) == before
    for name in ("steps/first.py", "arithmetic/adding.py", "arithmetic/averages.py", "robust.py"):
        assert version("microsr.steps.first", **{**change, name: f"{change[name]}\nMORE = 1\n"}) != before


def test_the_same_name_from_another_module_is_another_thing(version):
    """Although both modules are reached before and after."""
    from_means = {"sums.py": "from microsr.means import mean\n\ndef add(values):\n    return mean(values)\n"}
    other = {
        "means.py": PROGRAM["means.py"],
        "step.py": PROGRAM["step.py"].replace("import mean", "import other as mean"),
    }
    assert version(**from_means) != version()
    assert version(**other) != version()
    swapped = PROGRAM["step.py"].replace("import config, sums", "import config, means, sums")
    assert version(**{"step.py": swapped}) != version(**{"step.py": swapped.replace("sums.add", "means.add")})


def test_each_step_has_a_module_and_a_version_of_its_own():
    versions = {step: code_version(step) for step in STEPS}
    assert len(set(versions.values())) == len(STEPS)
    for step, module in STEPS.items():
        assert module in decisive_modules(module), step


def test_a_step_is_named_as_its_command():
    from microsr import cli

    assert {step.partition(".")[0] for step in STEPS} == set(cli.STEPS) - {"new", "run", "info", "provenance", "demo"}


def test_a_figure_is_decided_by_its_module_and_the_command():
    assert code_version("figures.losses") in step_version("figures.losses")
    assert code_version("figures", alone=True) in step_version("figures.losses")
    assert step_version("train") == code_version("train")


def test_a_real_module_can_be_moved(tmp_path):
    """The scanner, which training, simulation and metrics use, into a folder."""
    copy = tmp_path / "microsr"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    steps = {step: fingerprint(module) for step, module in STEPS.items()}
    (copy / "further").mkdir()
    (copy / "further/__init__.py").touch()
    was = scanner.__name__
    package, _, name = was.rpartition(".")
    (copy / Path(scanner.__file__).relative_to(SOURCE)).rename(copy / "further/ct.py")
    changed = 0
    for file in copy.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        new = text.replace(f"from {was} import", "from microsr.further.ct import")
        if found := re.search(rf"(?m)^from {re.escape(package)} import (.*\b{name}\b.*)$", new):
            others = [other for other in found[1].split(", ") if other != name]
            left = f"from {package} import {', '.join(others)}\n" if others else ""
            new = new.replace(f"{found[0]}\n", f"from microsr.further import ct\n{left}")
            new = re.sub(rf"\b{name}\.(?=[a-z_]+\(|[A-Z])", "ct.", new)
        changed += new != text
        file.write_text(new, encoding="utf-8")
    assert changed > 4
    assert {step: fingerprint(module, source=copy) for step, module in STEPS.items()} == steps
