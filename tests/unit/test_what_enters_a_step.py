"""Which code decides a step: what is not in it may change without making results anew that took hours."""

import pytest

from microsr.code_version import STEPS, decisive_modules

PACKAGES = {
    "core": "csv_files",
    "config": "sheet",
    "volume": "storage slices chunks overlay",
    "physics": "scanner nullspace spectrum tissues airways window blocks moments",
    "formats": "readers writers headers textheaders layouts rawfile dicom dicom_series outputs",
    "networks": "networks layers convolution model_file devices",
    "preprocessing": (
        "volumes hounsfield calibration masks parts morphology resampling regridding pooling patches patch_files positions domain"
    ),
    "simulation": (
        "simulate anatomy trees tubes septa foam lesions space validate validate_lung validate_scanner validation"
    ),
    "training": "train cyclegan passes losses sampling parallel checkpoint monitor",
    "inference": "superresolve upsamplers gather export",
    "evaluation": (
        "evaluate tables collect summary catalogue metrics texture structures bronchioles features no_reference truth downsampled "
        "distribution repeatability names"
    ),
    "figures": (
        "figures figure_style figure_bronchioles figure_comparison figure_domain figure_efficiency figure_hallucination figure_losses "
        "figure_metrics figure_network figure_patches figure_tiling figure_validation figure_volumes typeset metric_tables "
        "report_calibration report_panels"
    ),
    "report": "report report_viewer report_figures report_provenance provenance_report",
}
"""The package of each module that may decide something. Below `microsr.<package>`, a module says it itself."""
PACKAGE = {module: package for package, modules in PACKAGES.items() for module in modules.split()}

IMPORTED = {"core", "config", "volume", "physics", "formats"}
"""Of what reads or makes volumes."""
ALLOWED = {
    "simulate": IMPORTED | {"simulation"},
    "validate": IMPORTED | {"simulation"},
    "volumes": IMPORTED | {"preprocessing"},
    "volumes.downsample": {"volume", "physics", "preprocessing"},
    "patches": {"core", "volume", "preprocessing"},
    "domain": {"core", "volume", "physics", "preprocessing"},
    "train": {"core", "physics", "networks", "preprocessing", "training"},
    "superresolve": IMPORTED | {"preprocessing", "networks", "inference"},
    "gather": {"inference"},
    "export": IMPORTED | {"inference"},
    "features": IMPORTED | {"preprocessing", "evaluation"},
    "evaluate": {"core", "volume", "physics", "preprocessing", "evaluation"},
    "evaluate.downsampled": {"core", "volume", "physics", "preprocessing", "evaluation"},
    "evaluate.distribution": IMPORTED | {"preprocessing", "evaluation"},
    "evaluate.repeatability": {"core", "volume", "physics", "evaluation"},
    "evaluate.collect": {"core", "evaluation"},
    "evaluate.summarise": {"core", "evaluation"},
    "report": {"core", "volume", "physics", "preprocessing", "evaluation", "figures", "report"},
}
"""The packages of which a step may have modules. No step has what stands above it; of what stands below, what it has use for."""
FIGURES = IMPORTED | {"networks", "preprocessing", "simulation", "inference", "evaluation", "figures"}

# Modules of an allowed package that a step must not have, as they are of another step.
OTHERS = {
    "train": {"patches", "domain", "volumes", "storage"},
    "evaluate": {"catalogue", "collect", "summary", "patches", "downsampled", "distribution", "repeatability", "features"},
    "evaluate.downsampled": {"catalogue", "collect", "summary", "no_reference", "truth", "distribution", "repeatability"},
    "evaluate.distribution": {"catalogue", "collect", "summary", "patches", "no_reference", "truth", "downsampled", "repeatability"},
    "evaluate.repeatability": {"catalogue", "collect", "summary", "no_reference", "truth", "downsampled", "distribution"},
    "features": {"catalogue", "tables", "patches", "metrics"},
    "superresolve": {"volumes", "patches", "export"},
    "patches": {"volumes", "domain"},
    "simulate": {"validate", "readers"},
}  # fmt: skip


def package_of(module: str) -> str:
    """The package that a module of microsr stands in, by its dotted name or by PACKAGES."""
    _, *rooms, name = module.split(".")
    return rooms[0] if rooms else PACKAGE.get(name, name)


def names(step: str) -> set[str]:
    """The modules that decide a step, without their packages."""
    return {module.rpartition(".")[2] for module in decisive_modules(STEPS[step])}


def test_every_step_is_asked():
    assert set(ALLOWED) == {step for step in STEPS if not step.startswith(("figures", "report."))}


@pytest.mark.parametrize("step", STEPS)
def test_only_packages_that_decide_a_step_are_in_its_fingerprint(step):
    found: dict[str, list[str]] = {}
    for module in sorted(decisive_modules(STEPS[step])):
        found.setdefault(package_of(module), []).append(module)
    crept_in = {package: modules for package, modules in found.items() if package not in ALLOWED.get(step, FIGURES)}
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
    assert set(PACKAGE) - there <= {"provenance_report", "chunks"}


def test_a_figure_never_has_a_module_of_the_report():
    """The report imports figures; nothing imports it."""
    for step in STEPS:
        if step != "report":
            assert "report" not in {package_of(module) for module in decisive_modules(STEPS[step])}, step
