"""Mean and mean square of values that come in parts, so that a volume never is in memory whole."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass
class Moments:
    """Mean and mean square of values that arrive in parts."""

    number: int = 0
    total: float = 0.0
    squares: float = 0.0

    def add(self, values: np.ndarray) -> Moments:
        """Count `values` (any shape) in."""
        values = np.asarray(values, float)
        self.number += values.size
        self.total += float(values.sum())
        self.squares += float(np.square(values).sum())
        return self

    @property
    def mean(self) -> float:
        """Mean of all values."""
        return self.total / self.number

    @property
    def mean_square(self) -> float:
        """Mean of all squared values."""
        return self.squares / self.number
