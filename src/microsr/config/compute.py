"""Section `compute`: how the work is done."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from microsr.config.section import Count, Positive, Section


class Compute(Section):
    """How the work is done; changing it re-runs nothing."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks run; auto: the GPU if there is one."""
    threads: Count = 1
    """CPU threads of an inference, or of each process of a training."""
    devices: Count = 1
    """Processes on a node that share each training step: one for each GPU, or several on a CPU."""
    nodes: Count = 1
    """Nodes that share each training step, inside one Slurm job."""
    accumulate: Count = 1
    """Parts in which a process takes its share of a batch, one after the other: less memory, same result."""
    compile: bool = False
    """Compile the training step (torch.compile): a minute or two at the start; on a CPU the steps were slower, on a GPU
    it was not measured (docs/training.md).
    """
    deterministic: bool = False
    """On a GPU: the same seed gives the same weights, bit for bit, but slower. On a CPU this is always so."""
    checkpoint_minutes: Positive = 5.0
    """A killed training loses at most about this much work, minutes."""
    retries: Annotated[int, Field(ge=0)] = 2
    """How often a training that was cut off (time limit, lost node, memory) is started again. It then continues."""
    tile: Literal["auto"] | Annotated[int, Field(ge=16)] = "auto"
    """Side of the square that is magnified at once, clinical pixels; bounds the memory. auto: what suits the device."""
    parts: Count = 1
    """Jobs that share each super-resolved volume, a block of slices each; the volume is the same."""


OF_TRAINING = ("devices", "nodes", "accumulate", "compile", "checkpoint_minutes", "retries")
"""Keys of Compute that concern a training only."""
