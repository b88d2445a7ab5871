"""Section `methods`: what is compared. Each kind of method has settings of its own."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, create_model

from microsr.config.methods.cyclegan import CycleGANMethod, Losses
from microsr.config.methods.mean import MeanMethod
from microsr.config.methods.method import KIND, Method, TrainedMethod, UntrainedMethod
from microsr.core.registry import load_thing
from microsr.core.registry.methods import METHODS, Entry
from microsr.core.registry.upsamplers import UPSAMPLERS

__all__ = [
    "INTERPOLATIONS",
    "KIND",
    "KINDS",
    "AnyMethod",
    "CycleGANMethod",
    "Losses",
    "MeanMethod",
    "Method",
    "TrainedMethod",
    "UntrainedMethod",
    "default_methods",
]

INTERPOLATIONS = tuple(UPSAMPLERS)
"""Kinds that need no training."""


def _settings_of(kind: str, entry: Entry) -> type[TrainedMethod]:
    """The settings of a trained kind: its own, or `train` alone."""
    if entry.settings:
        return load_thing(entry.settings)
    said = Annotated[Literal[kind], Field(description=entry.help)]
    return create_model(f"Method_{kind}", __base__=TrainedMethod, __doc__=entry.help, kind=(said, kind))


KINDS: dict[str, type[Method]] = {kind: _settings_of(kind, entry) for kind, entry in METHODS.items()}
"""The settings of each kind."""
KINDS |= dict.fromkeys(INTERPOLATIONS, UntrainedMethod) | {"mean": MeanMethod}
if TYPE_CHECKING:  # which kinds there are is known when it runs
    AnyMethod = Method
else:
    AnyMethod = Annotated[reduce(or_, dict.fromkeys(KINDS.values())), Field(discriminator="kind")]
"""The settings of a method, of the kind that it names."""


def default_methods() -> dict[str, Method]:
    """The methods of an experiment that names none: the paper's, and the two it is compared with."""
    cyclegan = Losses(cycle=10, downsample=0, upsample=0, clinical_ssim=0, micro_ssim=0)
    return {
        "proposed": CycleGANMethod(),
        "bicubic": UntrainedMethod(kind="bicubic"),
        "cyclegan": CycleGANMethod(losses=cyclegan, mix_fraction=0),
    }
