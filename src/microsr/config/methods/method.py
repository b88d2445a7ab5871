"""What the settings of every method have: its kind, and of a trained one its own changes to the training."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, model_validator

from microsr.config.section import Section
from microsr.config.train import Train
from microsr.core.registry.methods import FILES, METHODS, Data
from microsr.core.registry.upsamplers import UPSAMPLERS

KIND = "cyclegan"
"""The kind of a method that names none."""


class Method(Section):
    """One way of super-resolving a clinical CT."""

    kind: str
    """What it is: cyclegan, trained as the paper's method; regression or posterior, trained on pairs; mean, of a
    posterior's draws; or bicubic, nearest: interpolation, nothing is trained.
    """

    @model_validator(mode="before")
    @classmethod
    def _without_upsampler(cls, given: Any) -> Any:
        """The key that `kind` has replaced, refused with what to write now."""
        if isinstance(given, dict) and "upsampler" in given:
            kind = KIND if given["upsampler"] == "generator" else given["upsampler"]
            raise ValueError(f"upsampler is now kind: write kind: {kind} instead of upsampler: {given['upsampler']}")
        return given


class UntrainedMethod(Method):
    """A way that needs no training (`core.registry.upsamplers`): it has no settings but its kind."""

    kind: Literal[*UPSAMPLERS]
    """The interpolation."""


def _changes(train: dict[str, Any]) -> dict[str, Any]:
    """A method's changes to the section `train`, checked by the section's own rules."""
    Train.model_validate(train)
    for key in ("repeats", "candidates"):
        if key in train:
            raise ValueError(f"{key} must be the same for all methods; set it in train")
    return train


class TrainedMethod(Method):
    """A way that is trained (`core.registry.methods`)."""

    train: Annotated[dict[str, Any], AfterValidator(_changes)] = {}
    """Keys of the section `train` that differ for this method, as {network: resnet}; any but repeats and candidates."""

    @property
    def data(self) -> Data:
        """What it learns from."""
        return METHODS[self.kind].data

    @property
    def files(self) -> tuple[str, ...]:
        """What the files hold that it learns from."""
        return FILES[self.data]

    @property
    def uses_noise(self) -> bool:
        """Whether training depends on the scanner's noise."""
        return False

    def needs_scanner(self, train: Train) -> bool:
        """Whether a training of the method by such a section `train` depends on the scanner."""
        return self.uses_noise or train.start_steps > 0
