"""Settings of a method of kind mean: many draws of another method's models, in place of one."""

from __future__ import annotations

from typing import Literal

from microsr.config.methods.method import Method
from microsr.config.section import Name


class MeanMethod(Method):
    """The mean of draws (superresolve.draws) of a method of kind posterior: nothing more is trained. With it come the
    draws' SD, P(solid), and metrics of whether they can be believed (docs/uncertainty.md).
    """

    kind: Literal["mean"] = "mean"
    """The best single estimate of a sampler, and a smooth one."""
    of: Name = "posterior"
    """Name of the method whose models draw; it must be of kind posterior."""
