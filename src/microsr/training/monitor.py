"""What is seen of a training: the rows of its history, and the same with sample panels, speed and memory in
TensorBoard.
"""

from __future__ import annotations

import functools
import resource
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from microsr.core.errors import UserError
from microsr.core.progress import logger
from microsr.networks.families import own_slice
from microsr.networks.layers import nearest_upsample
from microsr.training.methods.method import SKIPPED

ROW_FACTS = ("step", "epoch", "learning_rate", SKIPPED)
EXPLODED = 1e4
"""No loss of images in [-1, 1] comes near it in a training that can still be saved."""
STALLED = 10
"""So many steps in a row without a finite gradient are no chance."""


class History:
    """A row for every few steps: the mean of each loss over them. The sums stay on the device, so that no step waits
    for them.
    """

    def __init__(self, rows: list[dict[str, float]] | None = None, sums: dict[str, float] | None = None) -> None:
        """rows, sums: of the training so far, from a state."""
        self.rows = rows or []
        self._sums: dict[str, Any] = sums or {}
        self._stalled = 0

    def add(self, found: dict[str, Tensor]) -> None:
        """Count the losses of a step."""
        for name, value in found.items():
            self._sums[name] = self._sums.get(name, 0.0) + value.double()

    def sums(self, step: int) -> dict[str, float]:
        """What was added since the last row, to be saved after `step` steps.

        Raises
        ------
        UserError
            A loss is not finite, or has exploded.
        """
        sums = {name: float(value) for name, value in self._sums.items()}
        count = step - (self.rows[-1]["step"] if self.rows else 0)
        for name, value in sums.items():
            if not np.isfinite(value) or abs(value) > EXPLODED * count:
                raise divergence_error(f"{name} is {value / count:.3g} at step {step}")
        return sums

    def close_row(self, step: int, epoch: float, learning_rate: float) -> dict[str, float]:
        """The row that ends with this step; errors as `sums`."""
        count = step - (self.rows[-1]["step"] if self.rows else 0)
        means = {name: value / count for name, value in self.sums(step).items()}
        self._stalled = self._stalled + count if means.get(SKIPPED) == 1 else 0
        if self._stalled >= STALLED:
            raise divergence_error(f"no gradient was finite in the {self._stalled} steps up to step {step}")
        self.rows.append({"step": step, "epoch": epoch, "learning_rate": learning_rate, **means})
        self._sums = {}
        return self.rows[-1]

    def last(self) -> str:
        """The losses of the last row, for the progress line."""
        row = self.rows[-1] if self.rows else {}
        return " ".join(f"{name} {value:.3f}" for name, value in row.items() if name not in ROW_FACTS)


class DivergedError(UserError):
    """Losses or weights of a training are broken; with the same settings they break again."""


def divergence_error(what: str) -> DivergedError:
    """The error that ends a training with broken losses or weights."""
    return DivergedError(
        f"training diverged: {what}; lower train.learning_rate, set train.gradient_penalty to 1, or set "
        "train.precision to float32"
    )


class Board:
    """TensorBoard's files of a training; where they cannot be written, the training goes on without."""

    def __init__(self, folder: Path, step: int, pairs_per_step: int, device: str) -> None:
        """step: the one that the training goes on from; what was shown beyond it is dropped."""
        self._step, self._pairs, self._device = step, pairs_per_step, device
        self._since = time.monotonic()
        self._writer: SummaryWriter | None = None
        threading.excepthook = functools.partial(_leave_out_writers, threading.excepthook)
        try:
            self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
        except OSError as error:
            self._give_up(error)

    def show_row(self, row: dict[str, float]) -> None:
        """Losses, learning rate, speed since the last row, and memory."""
        step, now = int(row["step"]), time.monotonic()
        speed = self._pairs * (step - self._step) / max(now - self._since, 1e-9)
        self._step, self._since = step, now
        scalars = {f"losses/{name}": value for name, value in row.items() if name not in ROW_FACTS}
        scalars |= {name: row[name] for name in ("learning_rate", SKIPPED) if name in row}
        scalars |= {"pairs_per_second": speed, "memory_mb": memory(self._device)}
        self._write(lambda writer: [writer.add_scalar(name, value, step) for name, value in scalars.items()])

    def show_panel(self, a: Tensor, a_sr: Tensor, step: int) -> None:
        """Clinical patches [n, slices, h, w], the own slice of each, and below them A_SR [n, 1, scale * h, scale * w],
        both in [-1, 1].
        """
        magnified = nearest_upsample(own_slice(a), a_sr.shape[-1] // a.shape[-1])
        rows = [torch.cat(list(images[:, 0].float().cpu()), dim=1) for images in (magnified, a_sr)]
        picture = ((torch.cat(rows) + 1) / 2).clamp(0, 1).nan_to_num()[None]
        self._write(lambda writer: writer.add_image("clinical_and_superresolved", picture, step))

    def flush(self) -> None:
        """Write what is not written yet: a state and these files then tell of the same steps."""
        self._write(lambda writer: writer.flush())

    def close(self) -> None:
        """Write what is not written yet, and end."""
        self._write(lambda writer: writer.close())

    def _write(self, write: Callable[[SummaryWriter], Any]) -> None:
        try:
            if self._writer is not None:
                write(self._writer)
        except OSError as error:
            self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        logger.warning("TensorBoard's files cannot be written (%s); the training goes on without them", error)
        self._writer = None


def _leave_out_writers(others: Callable[[threading.ExceptHookArgs], Any], failed: threading.ExceptHookArgs) -> None:
    """No traceback of TensorBoard's thread: its error comes up again at the next write, and is told then in a line."""
    if not type(failed.thread).__module__.startswith("tensorboard"):
        others(failed)


def memory(device: str) -> float:
    """The most memory that this process has held, MB: of the GPU if there is one."""
    if device.startswith("cuda"):
        return torch.cuda.max_memory_allocated(device) / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
