"""Protocols of evaluation, made where `evaluate.further_protocols` asks for them or of one kind of methods: each a
module that offers `microsr.evaluation.protocols.protocol.Protocol`, by the word behind `microsr evaluate`.

The module is loaded when it measures. no_reference and truth are always measured, by `microsr evaluate metrics`.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Entry(NamedTuple):
    """A protocol: its module, what `--help` says of it, and what the workflow has to know."""

    module: str
    help: str
    inputs: tuple[str, ...]
    """Its flags that name files, each one that `workflow.plan.Plan.evaluation_files` has."""
    columns: tuple[str, ...] = ()
    """Columns of the case sheet without which a case is not measured."""
    scans: Mapping[str, str] = MappingProxyType({})
    """Volumes of the case that are super-resolved for it beside the clinical CT, by the end of the result's name."""
    measures: str = ""
    """Which of `scans` is the result that it measures; none: that of the clinical CT."""
    references: tuple[str, ...] = ()
    """What is known of a simulated case and measured in a method's place, of `config.REFERENCES`."""
    settings: bool = False
    """Whether it takes the settings of the section `evaluate`."""
    kind: str = ""
    """Kind of the methods that it measures, always and under every condition; none: of all methods, where it is asked
    for."""
    beside: tuple[str, ...] = ()
    """Tables that it writes beside its own, by what is put before .csv."""


PROTOCOLS: dict[str, Entry] = {
    "distribution": Entry(
        "microsr.evaluation.protocols.distribution",
        help="compare the tissue features of a super-resolved CT with those of uCT",
        inputs=("superresolved", "clinical", "micro", "features"),
        references=("truth", "thick_truth", "noise_free"),
    ),
    "downsampled": Entry(
        "microsr.evaluation.protocols.downsampled",
        help="compare a super-resolved down-sampled uCT with the uCT itself",
        inputs=("superresolved", "micro"),
        columns=("micro",),
        scans={"downsampled": "downsampled"},
        measures="downsampled",
        settings=True,
    ),
    "repeatability": Entry(
        "microsr.evaluation.protocols.repeatability",
        help="compare the super-resolved CTs of two scans of one lung",
        inputs=(
            "superresolved",
            "repeated",
            "clinical",
            "repeated_clinical",
            "redrawn",
            "same_draw",
            "sd",
            "repeated_sd",
        ),
        columns=("repeat",),
        scans={"repeat": "repeat", "redrawn": "clinical", "same_draw": "repeat"},
        references=("truth",),
    ),
    "uncertainty": Entry(
        "microsr.evaluation.protocols.uncertainty",
        help="compare the draws of a posterior sampler with the truth",
        inputs=("draws", "clinical", "truth", "labels"),
        columns=("truth",),
        kind="mean",
        beside=("curves",),
    ),
}

ASKED_FOR = tuple(name for name, entry in PROTOCOLS.items() if not entry.kind)
"""What `evaluate.further_protocols` may name."""
