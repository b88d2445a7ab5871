"""Which code decides a step: what is not in it may change without making results anew that took hours."""

import pytest

from microsr.core.code_version import STEPS, decisive_modules
from microsr.core.registry.protocols import PROTOCOLS

IMPORTED = {"core", "config", "volume", "physics", "formats"}
"""Of what reads or makes volumes."""
ALLOWED = {
    "simulate": IMPORTED | {"simulation"},
    "validate": IMPORTED | {"simulation"},
    "volumes": IMPORTED | {"preprocessing"},
    "scan": IMPORTED | {"preprocessing"},
    "volumes.downsample": {"volume", "physics", "preprocessing"},
    "volumes.registered": {"volume", "physics", "preprocessing", "formats"},
    "patches": {"core", "volume", "preprocessing"},
    "pairs": {"core", "volume", "physics", "preprocessing"},
    "domain": {"core", "volume", "physics", "preprocessing"},
    "scanner": IMPORTED | {"preprocessing"},
    "train": {"core", "physics", "networks", "preprocessing", "training"},
    "superresolve": IMPORTED | {"preprocessing", "networks", "inference"},
    "gather": {"inference"},
    "channels": IMPORTED | {"inference"},
    "export": IMPORTED | {"inference"},
    "export.model": {"core", "physics", "networks", "preprocessing", "training", "evaluation", "report"},
    "features": IMPORTED | {"preprocessing", "evaluation"},
    "evaluate": {"core", "volume", "physics", "preprocessing", "evaluation"},
    "evaluate.downsampled": {"core", "volume", "physics", "preprocessing", "evaluation"},
    "evaluate.distribution": IMPORTED | {"preprocessing", "evaluation"},
    "evaluate.repeatability": {"core", "volume", "physics", "evaluation"},
    "evaluate.uncertainty": {"core", "volume", "physics", "evaluation"},
    "evaluate.collect": {"core", "evaluation"},
    "evaluate.summarise": {"core", "evaluation"},
    "evaluate.search": {"core", "evaluation"},
    "evaluate.choices": {"core", "evaluation"},
    "evaluate.validate": IMPORTED | {"preprocessing", "simulation", "networks", "evaluation"},
    "evaluate.choose": IMPORTED | {"preprocessing", "networks", "inference", "evaluation"},
    "report": {"core", "volume", "physics", "preprocessing", "evaluation", "figures", "report"},
}
"""The packages of which a step may have modules. No step has what stands above it; of what stands below, what it has
use for.
"""
MEASURING = IMPORTED | {"preprocessing", "evaluation"}
"""Of a protocol of evaluation that has no line of its own above."""
ALLOWED |= {step: MEASURING for step in map("evaluate.{}".format, PROTOCOLS) if step not in ALLOWED}
FIGURES = IMPORTED | {"networks", "preprocessing", "simulation", "inference", "evaluation", "figures"}
OF_REPORT = FIGURES | {"report"}
"""The figures that the report draws for itself."""


def protocols_but(*own: str) -> set[str]:
    """The modules of the protocols of evaluation without those named."""
    every = {name: entry.module.removeprefix("microsr.") for name, entry in PROTOCOLS.items()}
    every |= {name: f"evaluation.protocols.{name}" for name in ("no_reference", "truth")}
    return {module for name, module in every.items() if name not in own}


COLLECTING = {"evaluation.catalogue", "evaluation.collect", "evaluation.summary"}
"""What makes one table of all protocols' tables."""
# Modules of an allowed package that a step must not have, as they are of another step.
OTHERS = {
    "train": {"preprocessing.patches", "preprocessing.checks.domain", "preprocessing.volumes", "volume.storage"},
    "evaluate": COLLECTING
    | {"preprocessing.patches", "evaluation.tissue_features"}
    | protocols_but("no_reference", "truth"),
    **{f"evaluate.{name}": COLLECTING | protocols_but(name) for name in PROTOCOLS},
    "evaluate.distribution": COLLECTING | {"preprocessing.patches"} | protocols_but("distribution"),
    "features": {"evaluation.catalogue", "evaluation.tables", "preprocessing.patches", "evaluation.metrics"},
    "superresolve": {"preprocessing.volumes", "preprocessing.patches", "inference.export"},
    "patches": {"preprocessing.volumes", "preprocessing.checks.domain"},
    "pairs": {"preprocessing.patches", "preprocessing.volumes", "preprocessing.checks.domain"},
    "simulate": {"simulation.validation.validate", "formats.readers"},
}


def package_of(module: str) -> str:
    """The package that a module of microsr stands in, by its dotted name."""
    return module.split(".")[1]


def names(step: str) -> set[str]:
    """The modules that decide a step, from their packages on."""
    return {module.partition(".")[2] for module in decisive_modules(STEPS[step])}


def test_every_step_is_asked():
    assert set(ALLOWED) == {step for step in STEPS if not step.startswith(("figures", "report."))}


@pytest.mark.parametrize("step", STEPS)
def test_only_packages_that_decide_a_step_are_in_its_fingerprint(step):
    found: dict[str, list[str]] = {}
    for module in sorted(decisive_modules(STEPS[step])):
        found.setdefault(package_of(module), []).append(module)
    crept_in = {
        package: modules
        for package, modules in found.items()
        if package not in ALLOWED.get(step, OF_REPORT if step.startswith("report.") else FIGURES)
    }
    assert not crept_in, (
        f"an edit of these would make {step} anew: move what it needs of them, or import it where it is used"
    )


@pytest.mark.parametrize("step", OTHERS)
def test_what_is_another_step_s_is_not_in_it(step):
    assert not names(step) & OTHERS[step]


def test_the_table_names_modules_that_there_are():
    """Else it would forbid nothing."""
    there = set().union(*map(names, STEPS))
    assert {name for others in OTHERS.values() for name in others} <= there


def test_a_figure_never_has_a_module_of_the_report():
    """The report imports figures; nothing imports it."""
    for step in STEPS:
        if not step.startswith(("report", "export.model")):
            assert "report" not in {package_of(module) for module in decisive_modules(STEPS[step])}, step
