"""What a trainable method must offer, and what it is made from.

`training.train` finds a method by its kind in `core.registry.methods`, and asks it for its data, its steps, its state
and its model. Everything random belongs to a sample, (seed, sample number), so a batch may be cut into portions and
shared by processes without changing what is learnt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from torch import Tensor, nn

from microsr import config
from microsr.training.distributed import Processes

SKIPPED = "skipped"
"""Beside the losses: 1 if the step changed no weights, as a gradient was not finite."""

Sizes = tuple[int, int]
"""Sides of a clinical and a uCT patch, pixels."""


def scale_of(sizes: Sizes) -> int:
    """Pixels of a uCT patch along one of a clinical patch."""
    return sizes[1] // sizes[0]


@dataclass(frozen=True)
class Setup:
    """What a training is made from, but for its patches."""

    train: config.Train
    method: Any
    """A `config.TrainedMethod`, of the kind that the trainable method is registered for."""
    seed: int
    window_hu: tuple[float, float] = (-1000.0, 400.0)
    """HU that the networks see as -1 and 1."""
    scanner: config.Scanner | None = None
    """Where the method learns from its noise, or has a start."""
    precision: str = "float32"
    """Of the networks' layers, "float32" or "bfloat16"."""
    processes: Processes = field(default_factory=Processes)
    """This process among those of the training, with its device."""
    accumulate: int = 1
    """Portions in which a process takes its share of a batch."""
    compiled: bool = False
    """Whether torch.compile is asked for."""

    @property
    def slices(self) -> int:
        """Clinical slices that G1 sees, the one to super-resolve in the middle."""
        return getattr(self.method, "slices", 1)


class Data(Protocol):
    """What is learnt from: batches that hang on the seed and the step alone (`training.batches.Batches`)."""

    sizes: Sizes
    steps_per_epoch: int
    slice_mm: tuple[float, float] | None
    """Smallest and largest distance of the slices of an input, mm; None: inputs are single slices."""

    def batch(self, step: int, portion: slice | None = None) -> NamedTuple:
        """The tensors of a step, [batch, 1, rows, columns] in [-1, 1], or of a portion of its samples, bit for bit; of
        inputs of several slices [batch, slices, rows, columns].
        """
        ...

    def pairs(self, step: int, portion: slice | None = None) -> NamedTuple:
        """The same of a step of the start."""
        ...

    def examples(self) -> Tensor:
        """A few inputs of G1 [n, 1 or slices, rows, columns] in [-1, 1], always the same, which the board shows."""
        ...


class TrainableMethod(Protocol):
    """A method in training, on one process of it."""

    networks: Mapping[str, nn.Module]
    """All of its networks, by the names that errors give them."""
    SAMPLER: bool
    """Whether its G1 is the family's for many draws, where there is one (`networks.families.Family.sampler`)."""

    @staticmethod
    def open_data(files: Mapping[str, Sequence[Path]], setup: Setup) -> Data:
        """The patches to learn from; files: patch files, one a case, by what they hold ("clinical", "micro")."""
        ...

    def __init__(self, setup: Setup, sizes: Sizes) -> None:
        """The networks with their first weights, on the setup's device."""
        ...

    def step(self, number: int, batch: Any, learning_rate: float) -> dict[str, Tensor]:
        """Update the networks; returns every loss, unweighted, as a mean over the whole batch, and SKIPPED.

        batch: this process's share of the data's batch `number`.
        """
        ...

    def start(self, number: int, pairs: Any, learning_rate: float) -> dict[str, Tensor]:
        """The same for a step of the start, `train.start_steps`, which comes before all others."""
        ...

    def fix_normalisation(self, share: float) -> None:
        """Let G1 work, for that share of 0 to 1, as at inference, where nothing hangs on statistics of an image; called
        before each step of the training's last part, in which the learning rate falls.
        """
        ...

    def superresolve(self, a: Tensor) -> Tensor:
        """What the board shows: A_SR of examples by the weights as they are; the training does not notice."""
        ...

    def generator(self) -> dict[str, Tensor]:
        """The weights of the G1 that is saved as the model, as `networks.families.build_g1` has them."""
        ...

    def state(self) -> dict[str, Any]:
        """Everything that a later step depends on."""
        ...

    def load(self, state: dict[str, Any]) -> None:
        """Go back to a state."""
        ...

    @staticmethod
    def gigaflops_per_pair(setup: Setup, sizes: Sizes) -> float:
        """Arithmetic of a step for each pair of patches, 10^9 floating point operations."""
        ...
