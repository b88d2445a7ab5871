"""A whole experiment: all sections, and what must hold between them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from microsr.config.cases import REFERENCES, Cases, MicroScan, Scanner, Simulate
from microsr.config.compute import Compute
from microsr.config.evaluate import Evaluate
from microsr.config.figures import Figures
from microsr.config.methods import KIND, AnyMethod, MeanMethod, TrainedMethod, default_methods
from microsr.config.pairs import Pairs
from microsr.config.patches import Patches
from microsr.config.search import Search
from microsr.config.section import DEFAULT_SCALE, Name, Scale, Section
from microsr.config.superresolve import Superresolve
from microsr.config.train import Train
from microsr.config.volumes import Volumes


class Experiment(Section):
    """A whole experiment: results/<experiment>/ holds everything made from it."""

    experiment: Name
    """Name of the experiment and of its folder under results/."""
    note: str | None = None
    """What a reader of the comparison figure must know of the data; a line below the panels."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 1
    """Seed of every random stream (simulation, patches, training, noise inputs)."""
    window_hu: tuple[float, float] = (-1000.0, 400.0)
    """Intensity window that networks see as [-1, 1], HU (open in the paper)."""
    scale: Scale = DEFAULT_SCALE
    """In-plane magnification, from the clinical CT's pixels to those that networks give (paper: 8)."""
    cases: Cases = Field(default_factory=Cases)
    scanner: Scanner = Field(default_factory=Scanner)
    scan: MicroScan = Field(default_factory=MicroScan)
    simulate: Simulate = Field(default_factory=Simulate)
    volumes: Volumes = Field(default_factory=Volumes)
    patches: Patches = Field(default_factory=Patches)
    pairs: Pairs = Field(default_factory=Pairs)
    methods: Annotated[dict[Name, AnyMethod], Field(min_length=1)] = Field(default_factory=default_methods)
    """Methods to compare, in the order of the figure's panels; a method set to null is left out."""
    protocols: Annotated[list[Literal["pooled", "per_case", "leave_one_out"]], Field(min_length=1)] = ["pooled"]
    """pooled: one model from all training cases (the paper); per_case: one model a case; leave_one_out: one model
    without each case, tested on it.
    """
    train: Train = Field(default_factory=Train)
    search: Search = Field(default_factory=Search)
    superresolve: Superresolve = Field(default_factory=Superresolve)
    evaluate: Evaluate = Field(default_factory=Evaluate)
    compute: Compute = Field(default_factory=Compute)
    figures: Figures = Field(default_factory=Figures)

    @field_validator("methods", mode="before")
    @classmethod
    def _of_a_kind(cls, methods: Any) -> Any:
        """A method that names no kind is of KIND; one set to null is left out: the way for an overlay to drop one of
        config.yaml.
        """
        if not isinstance(methods, dict):
            return methods
        given = {name: method for name, method in methods.items() if method is not None}
        return {name: {"kind": KIND} | method if isinstance(method, dict) else method for name, method in given.items()}

    @field_validator("methods")
    @classmethod
    def _not_reserved(cls, methods: dict[str, Any]) -> dict[str, Any]:
        if reserved := [name for name in methods if name in REFERENCES]:
            raise ValueError(
                f"{reserved[0]} is what is known of a case, which the tables show beside the methods; give the method "
                "another name"
            )
        return methods

    @model_validator(mode="after")
    def _window(self) -> Experiment:
        if self.window_hu[0] >= self.window_hu[1]:
            raise ValueError("window_hu must rise from the first value to the second")
        if len(set(self.protocols)) != len(self.protocols):
            raise ValueError("protocols lists one twice")
        for name, method in self.trained_methods.items():
            if method.uses_noise and self.scanner.noise_hu == 0:
                raise ValueError(
                    f"scanner.noise_hu is 0, but method {name} learns from the scanner's noise; give its SD in HU"
                )
        if self.scan.micro and self.cases.sheet is None:
            raise ValueError(
                "scan.micro is true, but simulated cases have a clinical CT; name the sheet of your uCT in "
                "cases.sheet, or set it to false"
            )
        if not self.volumes.clinical.is_lung and "distribution" in self.evaluate.further_protocols:
            raise ValueError(
                "evaluate.further_protocols: distribution compares features of lung tissue, and volumes.clinical is of "
                "another organ; leave it out, or set volumes.clinical.organ: lung"
            )
        drawn, chosen = self.figures.slice, self.superresolve.slices
        if drawn is not None and chosen != "all" and not _holds(chosen, drawn):
            raise ValueError(f"figures.slice is {drawn}, must be one of superresolve.slices: {chosen}")
        return self

    @model_validator(mode="after")
    def _draws(self) -> Experiment:
        for name, of in self.means.items():
            if of not in self.methods or self.methods[of].kind != "posterior":
                sampled = [other for other, method in self.methods.items() if method.kind == "posterior"]
                raise ValueError(
                    f"methods.{name}.of is {of}, must be the name of a method of kind posterior "
                    f"({', '.join(sampled) or 'there is none'})"
                )
        return self

    @model_validator(mode="after")
    def _patch_sizes(self) -> Experiment:
        wanted = self.scale * self.patches.clinical_size
        if self.patches.micro_size != wanted:
            raise ValueError(
                f"patches.micro_size is {self.patches.micro_size}, must be scale x patches.clinical_size = "
                f"{self.scale} x {self.patches.clinical_size} = {wanted}"
            )
        return self

    @model_validator(mode="after")
    def _trainings(self) -> Experiment:
        compute, size = self.compute, self.patches.clinical_size
        parts = compute.devices * compute.nodes * compute.accumulate
        for name in self.trained_methods:
            train = self.training_of(name)
            if train.network == "resnet" and size < 6:
                raise ValueError(f"patches.clinical_size is {size}, network resnet (method {name}) needs at least 6")
            if train.network == "resnet" and self.methods[name].kind == "posterior":
                raise ValueError(
                    f"network resnet draws nothing at random, so method {name} cannot sample with it; "
                    "take efficient or compact"
                )
            if train.batch_size % parts:
                raise ValueError(
                    f"batch_size is {train.batch_size} (method {name}), must be divisible by compute.devices x nodes x "
                    f"accumulate = {compute.devices} x {compute.nodes} x {compute.accumulate} = {parts}"
                )
        return self

    def scanner_of(self, condition: str | None = None) -> Scanner:
        """The scanner that the clinical scans of a condition are made with: the one stated, unless they are simulated
        by another one.
        """
        changes: dict[str, Any] = {}
        if self.cases.sheet is None:
            changes = self.simulate.scanner | self.simulate.further_scans.get(condition, {})
        return Scanner.model_validate(self.scanner.model_dump() | changes)

    @property
    def trained_methods(self) -> dict[str, TrainedMethod]:
        """The methods that are trained, by their names."""
        return {name: method for name, method in self.methods.items() if isinstance(method, TrainedMethod)}

    @property
    def means(self) -> dict[str, str]:
        """The methods of kind mean, each with the trained method whose models draw."""
        return {name: method.of for name, method in self.methods.items() if isinstance(method, MeanMethod)}

    def training_of(self, method: str) -> Train:
        """The section `train` as it holds for a trained method, with the method's own changes."""
        return Train.model_validate(self.train.model_dump() | self.trained_methods[method].train)


def _holds(slices: str | list[int], index: int) -> bool:
    """Whether a list of slices, or the range first:end, holds one."""
    if isinstance(slices, list):
        return index in slices
    first, end = slices.split(":")
    return int(first or 0) <= index and (not end or index < int(end))
