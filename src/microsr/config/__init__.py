"""Every setting of an experiment: its name, type, unit, default and meaning.

The only place that knows a key or a default. `config.yaml` and the overlays in experiments/ are checked against
`Experiment`; each step receives its own section as command-line flags (`flags`, `from_flags`). A mistake stops the
workflow before any job.
"""

from microsr.config.arguments import (
    add_display,
    add_flags,
    add_method_flags,
    add_scale,
    add_scan_flags,
    display_from_flags,
    flags,
    from_flags,
    method_from_flags,
    named_paths,
    scan_from_flags,
)
from microsr.config.cases import OF_CASES, REFERENCES, Cases, MicroScan, Scanner, Simulate
from microsr.config.compute import OF_TRAINING, Compute
from microsr.config.evaluate import OF_PLAN, Evaluate
from microsr.config.experiment import Experiment
from microsr.config.figures import Figures, Inset
from microsr.config.loading import describe, load
from microsr.config.methods import (
    INTERPOLATIONS,
    KIND,
    KINDS,
    CycleGANMethod,
    Losses,
    MeanMethod,
    Method,
    TrainedMethod,
    UntrainedMethod,
)
from microsr.config.methods.pairs import PairedMethod, PosteriorMethod, RegressionMethod
from microsr.config.pairs import NEIGHBOURS, Pairs
from microsr.config.patches import Patches
from microsr.config.search import Search, trials_of, with_trials
from microsr.config.section import (
    DEFAULT_SCALE,
    IN_WORDS,
    NAME,
    SCALES,
    SLICES,
    SPACING,
    Count,
    Fraction,
    Name,
    Positive,
    Scale,
    Section,
    Weight,
    nearest_scale,
)
from microsr.config.superresolve import EXPORTED, Superresolve
from microsr.config.train import ENOUGH_SEEDS, Train
from microsr.config.volumes import Calibration, ClinicalVolume, MicroVolume, Volumes

__all__ = [
    "DEFAULT_SCALE",
    "ENOUGH_SEEDS",
    "EXPORTED",
    "INTERPOLATIONS",
    "IN_WORDS",
    "KIND",
    "KINDS",
    "NAME",
    "NEIGHBOURS",
    "OF_CASES",
    "OF_PLAN",
    "OF_TRAINING",
    "REFERENCES",
    "SCALES",
    "SLICES",
    "SPACING",
    "Calibration",
    "Cases",
    "ClinicalVolume",
    "Compute",
    "Count",
    "CycleGANMethod",
    "Evaluate",
    "Experiment",
    "Figures",
    "Fraction",
    "Inset",
    "Losses",
    "MeanMethod",
    "Method",
    "MicroScan",
    "MicroVolume",
    "Name",
    "PairedMethod",
    "Pairs",
    "Patches",
    "Positive",
    "PosteriorMethod",
    "RegressionMethod",
    "Scale",
    "Scanner",
    "Search",
    "Section",
    "Simulate",
    "Superresolve",
    "Train",
    "TrainedMethod",
    "UntrainedMethod",
    "Volumes",
    "Weight",
    "add_display",
    "add_flags",
    "add_method_flags",
    "add_scale",
    "add_scan_flags",
    "describe",
    "display_from_flags",
    "flags",
    "from_flags",
    "load",
    "method_from_flags",
    "named_paths",
    "nearest_scale",
    "scan_from_flags",
    "trials_of",
    "with_trials",
]
