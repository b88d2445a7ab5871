"""Every setting of an experiment: its name, type, unit, default and meaning.

The only place that knows a key or a default. `config.yaml` and the overlays in experiments/ are checked against `Experiment`;
each step receives its own section as command-line flags (`flags`, `from_flags`). A mistake stops the workflow before any job.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from microsr.core.errors import UserError
from microsr.core.scale import SCALE

NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"
SLICES = r"^[0-9]{0,9}:[0-9]{0,9}$"
SPACING = r"^[0-9.]+(x[0-9.]+){0,2}$"
IN_WORDS = {
    NAME: "letters, digits, '-' and '_', as case_1",
    SLICES: "first:end, end excluded, as 3:8",
    SPACING: "mm, as 0.6 or 0.6x0.6 or 0.6x0.6x1.25",
}
ENOUGH_SEEDS = 3
"""Trainings of a model, `train.repeats`, from which on a metric has an interval."""
Name = Annotated[str, Field(pattern=NAME)]
Positive = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(ge=1)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(ge=0)]


class Section(BaseModel):
    """A part of the configuration: unknown keys are refused, values are checked, nothing changes after loading."""

    # defer_build: a step uses a few of the sections, and the building of all of them is a third of the time to load this module.
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False, defer_build=True
    )


class Cases(Section):
    """Where the cases come from."""

    sheet: str | None = None
    """Case sheet (tab-separated), relative to the working directory; null: simulate the cases."""
    data_root: str = "."
    """Folder that relative paths in the sheet start from."""


class Simulate(Section):
    """Simulated lungs with a known truth, for when no sheet is given."""

    training_cases: Count = 3
    """Number of training cases, named train1, train2, ..."""
    test_cases: Count = 1
    """Number of held-out cases, named test1, test2, ..."""
    clinical_size: Annotated[int, Field(ge=16)] = 96
    """Clinical pixels along each side of a slice."""
    clinical_slices: Count = 8
    """Clinical slices per case."""
    slice_spacing_mm: Positive = 0.6
    """Clinical slice distance, mm (Table 1 of the paper)."""
    micro_spacing_mm: Positive = 0.05
    """uCT voxel size, mm; the paper's specimens: 0.034 to 0.053."""
    specimen_mm: Positive = 20.0
    """In-plane size of the specimen that is scanned by uCT, mm."""


class Scanner(Section):
    """What is known of the clinical scanner: the simulation scans with it, noise_aware trains and the metrics judge with it."""

    kernel: Literal["B30", "D45", "lung"] = "lung"
    """Reconstruction kernel, which decides the in-plane blur and the noise's grain (`microsr.physics.scanner.KERNELS`)."""
    pixel_mm: Positive = 0.625
    """Clinical pixel size, mm (Table 1 of the paper)."""
    slice_sigma_mm: Positive = 0.29
    """Slice profile as a Gaussian, mm."""
    noise_hu: Weight = 30.0
    """Standard deviation of the noise in the lung, HU."""


class ClinicalVolume(Section):
    """Import of clinical CT."""

    lung_below_hu: float = -400.0
    """Voxels below this HU, away from the outside air, are lung before holes are closed."""
    closing_mm: Weight = 4.0
    """Vessels and tumours up to about this thickness, mm, are taken into the lung mask."""


class Calibration(Section):
    """From uncalibrated uCT grey values to the HU-like scale."""

    method: Literal["two_point", "percentile", "none"] = "two_point"
    """two_point: an air and a tissue grey value; percentile: two percentiles of the specimen; none: the values are HU already."""
    air_grey: float | None = None
    """two_point: grey value of air; null: the air peak of the histogram."""
    tissue_grey: float | None = None
    """two_point: grey value of soft tissue; null: the soft-tissue peak of the histogram."""
    low_percentile: Annotated[float, Field(ge=0, lt=100)] = 5.0
    """percentile: maps to air_hu."""
    high_percentile: Annotated[float, Field(gt=0, le=100)] = 97.0
    """percentile: maps to tissue_hu."""
    air_hu: float = -1000.0
    """HU of air."""
    tissue_hu: float = 40.0
    """HU of soft tissue."""
    mean_hu: float | None = None
    """If given, values are then scaled about air_hu until the specimen's mean is this many HU (a specimen whose inflation differs from the patient's)."""

    @model_validator(mode="after")
    def _ordered(self) -> Calibration:
        if self.low_percentile >= self.high_percentile:
            raise ValueError("low_percentile must be below high_percentile")
        if self.air_hu >= self.tissue_hu:
            raise ValueError("air_hu must be below tissue_hu")
        if self.mean_hu is not None and self.mean_hu <= self.air_hu:
            raise ValueError("mean_hu must be above air_hu")
        return self


class MicroVolume(Section):
    """Import of uCT."""

    sampling: Literal["matched", "native"] = "matched"
    """matched: resampled, anti-aliased, to the clinical pixel size / 8; native: pixels as scanned (see area_average)."""
    matched_spacing_mm: Positive | None = None
    """matched: target pixel size, mm; null: the pixel size of the same case's clinical CT / 8."""
    area_average: Count = 1
    """native: this many pixels along each in-plane axis are averaged into one."""
    calibration: Calibration = Field(default_factory=Calibration)


class Volumes(Section):
    """Import, calibration and masks."""

    clinical: ClinicalVolume = Field(default_factory=ClinicalVolume)
    micro: MicroVolume = Field(default_factory=MicroVolume)


class Patches(Section):
    """Training patches."""

    clinical_size: Annotated[int, Field(ge=4)] = 32
    """Pixels along a side of a clinical patch (paper: 32)."""
    micro_size: Annotated[int, Field(ge=4 * SCALE)] = 256
    """Pixels along a side of a uCT patch (paper: 256), 8 times clinical_size."""
    per_case: Count = 2000
    """Patches of each modality from each training case (open in the paper; the authors' published code: 2000)."""
    inside: Fraction = 1.0
    """Smallest share of a patch that lies inside the lung or specimen mask (open in the paper; wholly inside)."""

    @model_validator(mode="after")
    def _ratio(self) -> Patches:
        if self.micro_size != SCALE * self.clinical_size:
            raise ValueError(
                f"micro_size is {self.micro_size}, must be {SCALE} x clinical_size = {SCALE * self.clinical_size}"
            )
        return self


class Losses(Section):
    """Weights of the generators' losses; 0 switches a loss off. Defaults: the proposed method (weights open in the paper)."""

    adversarial: Weight = 1.0
    """Least-squares adversarial losses of G1 and G2."""
    cycle: Weight = 1.0
    """L1 cycle consistency, both ways."""
    downsample: Weight = 1.0
    """downsample_loss: A against average-pooled A_SR."""
    upsample: Weight = 1.0
    """upsample_loss: B against nearest-neighbour up-sampled B_LR."""
    clinical_ssim: Weight = 1.0
    """clinical_ssim_loss: 1 - SSIM(A, average-pooled A_SR)."""
    micro_ssim: Weight = 1.0
    """micro_ssim_loss: 1 - SSIM(B, up-sampled B_LR)."""
    pixel_norm: Literal["mse", "l1"] = "mse"
    """Norm of downsample_loss and upsample_loss (paper: mse)."""
    repeat: Weight = 0.0
    """repeat_loss: A_SR against G1(A + the scanner's noise), so that the SR image does not follow the noise (beyond the paper)."""
    forgive_px: Weight = 0.0
    """Losses against a clinical A see both images blurred by a Gaussian of this sigma, clinical pixels: noise is finer, and is forgiven (beyond the paper)."""

    @property
    def further(self) -> dict[str, float]:
        """Weights, by their keys, of the losses in use that have a module of their own (docs/extending.md)."""
        return {key: weight for key, weight in self if key not in IN_PASSES and weight}


IN_PASSES = (
    "adversarial", "cycle", "downsample", "upsample", "clinical_ssim", "micro_ssim", "pixel_norm", "repeat", "forgive_px",
)  # fmt: skip
"""Keys of Losses that `microsr.training.passes` knows; any other weighs the loss in a module of its own, `microsr.loss_<key>`."""


class Train(Section):
    """Training of the modified CycleGAN."""

    network: Literal["efficient", "resnet", "compact"] = "efficient"
    """Network family: efficient (near resnet's quality at a fraction of its arithmetic), resnet (the paper's class) or compact (the smallest)."""
    repeats: Count = 1
    """Trainings of each model, which differ in their seed only (seed, seed + 1, ...): from three on the tables have intervals."""
    epochs: Count = 200
    """Passes over the training patches (paper: 200)."""
    patches_per_case: Count = 2000
    """Patch pairs drawn from each case in an epoch (open in the paper; the authors' published code: 2000)."""
    batch_size: Count = 4
    """Patch pairs in a step, over all processes (open in the paper)."""
    learning_rate: Positive = 1e-5
    """Adam's learning rate while constant (open in the paper)."""
    adam_betas: tuple[Fraction, Fraction] = (0.5, 0.999)
    """Adam's moment decay rates (open in the paper; CycleGAN's)."""
    constant_fraction: Fraction = 0.5
    """Share of the training with a constant learning rate; then it falls linearly to 0 (open in the paper; CycleGAN's)."""
    pool_size: Annotated[int, Field(ge=0)] = 50
    """Generated images kept to show the discriminators (open in the paper; CycleGAN's)."""
    augment: bool = True
    """Flip and rotate patches by multiples of 90 degrees."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 autocast where the hardware computes in it, else float32; losses are float32 always."""
    start_steps: Annotated[int, Field(ge=0)] = 0
    """Steps before all others in which G1 alone learns from pairs, uCT patches and what the scanner would make of them (beyond the paper; docs/method.md)."""
    noise_gain: Positive = 1.0
    """Strength of G1's and G2's random planes in the first weights, beside that of a feature (efficient, compact; beyond the paper)."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Decay per step of the exponential moving average of G1's weights that is saved as the model; 0: the weights themselves (beyond the paper)."""
    gradient_penalty: Weight = 0.0
    """Weight of the R1 penalty on the discriminators' gradient at real patches (Mescheder et al. 2018; beyond the paper)."""
    spectral_norm: bool | None = None
    """Spectral normalisation of the discriminators (Miyato et al. 2018); null: as the network family has it, efficient and compact on, resnet off."""


def _changes(train: dict[str, Any]) -> dict[str, Any]:
    """A method's changes to the section `train`, checked by the section's own rules."""
    Train.model_validate(train)
    if "repeats" in train:
        raise ValueError("repeats must be the same for all methods; set it in train")
    return train


class Method(Section):
    """One way of super-resolving a clinical CT."""

    upsampler: Literal["generator", "bicubic"] = "generator"
    """generator: a trained G1; bicubic: interpolation, nothing is trained."""
    losses: Losses = Field(default_factory=Losses)
    mix_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.25
    """Share of the clinical inputs that are down-sampled uCT patches (paper: 25 %)."""
    mix_noise: bool = False
    """Add the scanner's noise to those patches; the losses compare with what they were without it (beyond the paper)."""
    train: Annotated[dict[str, Any], AfterValidator(_changes)] = {}
    """Keys of the section `train` that differ for this method, as {network: resnet}; any but repeats."""

    @property
    def uses_noise(self) -> bool:
        """Whether training depends on the scanner's noise."""
        return self.losses.repeat > 0 or (self.mix_noise and self.mix_fraction > 0)


INTERPOLATIONS = tuple(name for name in get_args(Method.model_fields["upsampler"].annotation) if name != "generator")
"""Upsamplers that need no model: bicubic, and those in a module of their own, `microsr.upsampler_<name>`."""


class Superresolve(Section):
    """Inference on the test cases' clinical CT."""

    slices: (
        Literal["all"]
        | Annotated[str, Field(pattern=SLICES)]
        | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)]
    ) = "all"
    """Slices of the clinical volume to super-resolve (0 is the first): "all", "first:end" (end excluded) or a list of evenly spaced ones; all of them take 64 times the input's size."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the network's layers; auto: bfloat16 where the hardware has units for it (what it changes: docs/superresolution.md)."""
    formats: list[Literal["nifti", "nifti.gz", "nrrd", "metaimage", "dicom"]] = []
    """Formats in which the super-resolved volumes are given beside the OME-Zarr that the pipeline works on."""

    @field_validator("slices", mode="before")
    @classmethod
    def _no_number(cls, value: Any) -> Any:
        if isinstance(value, int):  # YAML reads 3:8 as 3 * 60 + 8
            raise ValueError('slices must be "all", a list, or a range in quotation marks, as "3:8"')
        return value

    @model_validator(mode="after")
    def _even(self) -> Superresolve:
        chosen = [] if isinstance(self.slices, str) else sorted(set(self.slices))
        if len({after - before for before, after in pairwise(chosen)}) > 1:
            raise ValueError(
                f"slices must be evenly spaced, as [3, 5, 7] (a volume has one slice distance), not {chosen}"
            )
        return self


EXPORTED = get_args(get_args(Superresolve.model_fields["formats"].annotation)[0])
"""Names of the formats beside OME-Zarr: those of `microsr.formats.writers`, and those in a module of their own, `microsr.format_<name>`."""


class Compute(Section):
    """How the work is done; changing it re-runs nothing."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks run; auto: the GPU if there is one."""
    threads: Count = 1
    """CPU threads of an inference, or of each process of a training."""
    devices: Count = 1
    """Processes on a node that share each training step: one a GPU, or several on a CPU."""
    nodes: Count = 1
    """Nodes that share each training step, inside one Slurm job."""
    accumulate: Count = 1
    """Parts in which a process takes its share of a batch, one after the other: less memory, same result."""
    compile: bool = False
    """Compile the training step (torch.compile): a minute or two at the start; on a CPU the steps were slower, on a GPU it was not measured (docs/training.md)."""
    deterministic: bool = False
    """On a GPU: the same weights from the same seed, bit for bit, but slower. On a CPU it is so always."""
    checkpoint_minutes: Positive = 5.0
    """A killed training loses at most about this much work, minutes."""
    retries: Annotated[int, Field(ge=0)] = 2
    """A training that was cut off (time limit, lost node, memory) is started again at most so often, and goes on."""
    tile: Literal["auto"] | Annotated[int, Field(ge=16)] = "auto"
    """Side of the square that is magnified at once, clinical pixels; bounds the memory. auto: what suits the device."""
    parts: Count = 1
    """Jobs that share each super-resolved volume, a block of slices each; the volume is the same."""


OF_TRAINING = ("devices", "nodes", "accumulate", "compile", "checkpoint_minutes", "retries")
"""Keys of Compute that concern a training only."""


FurtherProtocol = Literal["distribution", "downsampled", "repeatability"]
FURTHER_PROTOCOLS = get_args(FurtherProtocol)
"""Protocols of evaluation that are made where they are asked for; no_reference, and truth where it is known, are always made."""


class Evaluate(Section):
    """Metrics."""

    data_range_hu: Positive = 1400.0
    """Data range of PSNR and SSIM, HU; the width of the intensity window."""
    further_protocols: list[FurtherProtocol] = []
    """Protocols evaluated beside no_reference and truth, for the cases that allow them; each costs time on every result (docs/metrics.md)."""
    feature_steps: Annotated[int, Field(ge=2)] = 400
    """Steps of the small network whose features the protocol distribution compares; fewer are quicker, and their distances tell less."""
    validate_simulation: bool = False
    """Measure the simulated lung and scanner beside published figures: figures/validation, of a simulated lung made for it."""
    kernel_pair: Annotated[list[str], Field(max_length=2)] = []
    """One scan reconstructed with two kernels, [sharp, soft]: files under cases.data_root by which validate_simulation tests the simulated scanner's PSF; empty: none."""

    @model_validator(mode="after")
    def _pair(self) -> Evaluate:
        if len(self.kernel_pair) == 1:
            raise ValueError("kernel_pair must name two files, [sharp, soft], or none")
        if self.kernel_pair and not self.validate_simulation:
            raise ValueError(
                "kernel_pair is read by the validation of the simulated scanner only; set validate_simulation: true"
            )
        if len(set(self.further_protocols)) != len(self.further_protocols):
            raise ValueError("further_protocols lists one twice")
        return self


OF_PLAN = ("further_protocols", "validate_simulation", "kernel_pair")
"""Keys of Evaluate that decide what is evaluated, and no number of it."""


class Inset(Section):
    """A zoomed region of the comparison figure."""

    row: Annotated[int, Field(ge=0)]
    """First row, clinical pixels."""
    column: Annotated[int, Field(ge=0)]
    """First column, clinical pixels."""
    size: Annotated[int, Field(ge=4)] = 24
    """Side, clinical pixels."""


class Figures(Section):
    """The paper's figures."""

    slice: Annotated[int, Field(ge=0)] | None = None
    """Slice of the comparison figure (a super-resolved one); null: the one with most lung."""
    insets: list[Inset] = []
    """Zoomed regions; empty: two are chosen inside the lung, where the input has most structure."""
    display_window_hu: tuple[float, float] = (-1000.0, 200.0)
    """Grey scale of every panel: HU shown black and HU shown white."""


def _default_methods() -> dict[str, Method]:
    cyclegan = Losses(cycle=10, downsample=0, upsample=0, clinical_ssim=0, micro_ssim=0)
    return {
        "proposed": Method(),
        "bicubic": Method(upsampler="bicubic"),
        "cyclegan": Method(losses=cyclegan, mix_fraction=0),
    }


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
    cases: Cases = Field(default_factory=Cases)
    scanner: Scanner = Field(default_factory=Scanner)
    simulate: Simulate = Field(default_factory=Simulate)
    volumes: Volumes = Field(default_factory=Volumes)
    patches: Patches = Field(default_factory=Patches)
    methods: Annotated[dict[Name, Method], Field(min_length=1)] = Field(default_factory=_default_methods)
    """Methods to compare, in the order of the figure's panels; a method set to null is left out."""
    protocols: Annotated[list[Literal["pooled", "per_case", "leave_one_out"]], Field(min_length=1)] = ["pooled"]
    """pooled: one model from all training cases (the paper); per_case: one model a case; leave_one_out: one model without each case, tested on it."""
    train: Train = Field(default_factory=Train)
    superresolve: Superresolve = Field(default_factory=Superresolve)
    evaluate: Evaluate = Field(default_factory=Evaluate)
    compute: Compute = Field(default_factory=Compute)
    figures: Figures = Field(default_factory=Figures)

    @field_validator("methods", mode="before")
    @classmethod
    def _without_null(cls, methods: Any) -> Any:
        """A method set to null is left out: the way for an overlay to drop one of config.yaml."""
        return {k: v for k, v in methods.items() if v is not None} if isinstance(methods, dict) else methods

    @model_validator(mode="after")
    def _window(self) -> Experiment:
        if self.window_hu[0] >= self.window_hu[1]:
            raise ValueError("window_hu must rise from the first value to the second")
        if len(set(self.protocols)) != len(self.protocols):
            raise ValueError("protocols lists one twice")
        for name, method in self.methods.items():
            if method.uses_noise and self.scanner.noise_hu == 0:
                raise ValueError(
                    f"scanner.noise_hu is 0, but method {name} learns from the scanner's noise; give its SD in HU"
                )
        drawn, chosen = self.figures.slice, self.superresolve.slices
        if drawn is not None and chosen != "all" and not _holds(chosen, drawn):
            raise ValueError(f"figures.slice is {drawn}, must be one of superresolve.slices: {chosen}")
        return self

    @model_validator(mode="after")
    def _trainings(self) -> Experiment:
        compute, size = self.compute, self.patches.clinical_size
        parts = compute.devices * compute.nodes * compute.accumulate
        for name in (name for name, method in self.methods.items() if method.upsampler == "generator"):
            train = self.training_of(name)
            if train.network == "resnet" and size < 6:
                raise ValueError(f"patches.clinical_size is {size}, network resnet (method {name}) needs at least 6")
            if train.batch_size % parts:
                raise ValueError(
                    f"batch_size is {train.batch_size} (method {name}), must be divisible by compute.devices x nodes x "
                    f"accumulate = {compute.devices} x {compute.nodes} x {compute.accumulate} = {parts}"
                )
        return self

    def training_of(self, method: str) -> Train:
        """The section `train` as it holds for a method, with the method's own changes."""
        return Train.model_validate(self.train.model_dump() | self.methods[method].train)


def _holds(slices: str | list[int], index: int) -> bool:
    """Whether a list of slices, or the range first:end, holds one."""
    if isinstance(slices, list):
        return index in slices
    first, end = slices.split(":")
    return int(first or 0) <= index and (not end or index < int(end))


def describe(error: ValidationError, where: str) -> str:
    """One line for the first problem in `error`: file, key, what is wrong, what is allowed."""
    first = error.errors()[0]
    parts = (" ".join(str(part).split()) for part in first["loc"] if not _is_union_branch(part))  # one line
    key = ".".join(parts) or "(top level)"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        allowed = _keys_at(Experiment, first["loc"][:-1])
        message = "unknown key" + (f"; allowed here: {', '.join(allowed)}" if allowed else "")
    elif first["type"] == "missing":
        message = "is missing"
    elif first["type"] == "string_pattern_mismatch":
        message = f"must be {IN_WORDS[first['ctx']['pattern']]}, not {first['input']!r}"
    else:
        message += "" if isinstance(first["input"], dict) else f", not {first['input']!r}"[:120]
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{where}: {key}: {message}{more}"


def _is_union_branch(part: str | int) -> bool:
    return isinstance(part, str) and bool(re.search(r"[\[\]]", part))


def _keys_at(model: type[BaseModel], location: tuple) -> list[str]:
    """Names of the keys allowed at a location of the configuration."""
    for part in location:
        field = model.model_fields.get(part) if model is not None else None
        if field is None:
            continue  # the name of a method, or an index
        annotation = {"methods": Method, "insets": Inset, "train": Train}.get(part, field.annotation)
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)


def load(config: dict[str, Any], files: Sequence[Path] = ()) -> Experiment:
    """Check a configuration as Snakemake or YAML gives it.

    files: the YAML files that were merged into `config`, the one that counts most first; an error names the one it is in.

    Raises
    ------
    UserError
        One line that names the file, the key, what is wrong and what is allowed.
    """
    try:
        return Experiment.model_validate(config)
    except ValidationError as error:
        raise UserError(describe(error, _origin(error.errors()[0]["loc"], files))) from None


def _origin(location: tuple[str | int, ...], files: Sequence[Path]) -> str:
    """The first of `files` that sets the key at `location`; "config" if none does, as for a key from the command line."""
    for file in files:
        level = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
        found = bool(location)
        for part in location:
            if not isinstance(level, dict):
                break  # inside a value
            found = part in level
            if not found:
                break
            level = level[part]
        if found and level is not None:
            return str(file)
    return "config"


SectionT = TypeVar("SectionT", bound=Section)


def flags(section: Section, without: Sequence[str] = ()) -> str:
    """The section as command-line flags, `--key value` or `--outer.inner value`, in a fixed order, shell-quoted.

    A method's `train` has no flag: it reaches the command as the section that `Experiment.training_of` gives. A value that
    starts with a minus sign is joined to its key, as argparse takes -1e-05 for a flag.
    without: keys to leave out, which then do not count as a setting of the step.
    """
    given = []
    for key, value in _leaves(section):
        if key not in without:
            text = value if isinstance(value, str) else json.dumps(value)
            given.append(f"--{key}{'=' if text.startswith('-') else ' '}{shlex.quote(text)}")
    return " ".join(given)


def add_flags(parser: argparse.ArgumentParser, model: type[Section], without: Sequence[str] = ()) -> None:
    """Give `parser` one flag for each setting of `model`, those in `without` left out; values are written as in YAML."""
    for key, description in _described(model):
        if key in without:
            continue
        parser.add_argument(
            f"--{key}", dest=f"setting:{key}", metavar="VALUE", type=_value, help=description.replace("%", "%%")
        )


def named_paths(pairs: list[str], flag: str) -> dict[str, Path]:
    """`["proposed=a.ome.zarr", ...]` as {name: path}, in the same order.

    Raises
    ------
    UserError
        A pair without name or path, or a name given twice.
    """
    found: dict[str, Path] = {}
    for pair in pairs:
        name, _, path = pair.partition("=")
        if not name or not path or name in found:
            raise UserError(f"--{flag}: '{pair}' must be NAME=PATH, with a name that is given once")
        found[name] = Path(path)
    return found


def _value(text: str) -> Any:
    """As in YAML, but a range of slices is no number to the base of 60, and what is no YAML is a text."""
    try:
        return text if re.fullmatch(SLICES, text) else yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return text


def from_flags(namespace: argparse.Namespace, model: type[SectionT]) -> SectionT:
    """The section that `add_flags` had parsed; what was not given takes its default."""
    nested: dict[str, Any] = {}
    for name, _ in _described(model):
        value = getattr(namespace, f"setting:{name}", None)
        if value is not None:
            *outer, key = name.split(".")
            level = nested
            for part in outer:
                level = level.setdefault(part, {})
            level[key] = value
    try:
        return model.model_validate(nested)
    except ValidationError as error:
        raise UserError(describe(error, "command line")) from None


def _leaves(section: Section, prefix: str = "") -> list[tuple[str, Any]]:
    plain = section.model_dump(mode="json")
    found = []
    for key in type(section).model_fields:
        value = getattr(section, key)
        if isinstance(value, Section):
            found += _leaves(value, f"{prefix}{key}.")
        elif value is not None and not isinstance(value, dict):
            found.append((f"{prefix}{key}", plain[key]))
    return found


def _described(model: type[Section], prefix: str = "") -> list[tuple[str, str]]:
    found = []
    for key, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            found += _described(field.annotation, f"{prefix}{key}.")
        elif not isinstance(field.default, dict):
            found.append((f"{prefix}{key}", f"{field.description} (default: {json.dumps(field.default)})"))
    return found
