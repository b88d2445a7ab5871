"""microsr: micro-CT-level super-resolution of clinical lung CT (Zheng et al. 2020)."""

__version__ = "0.1.0"

SCALE = 8
"""In-plane magnification; the paper's only one (Zheng et al. 2020, section 2), built into every network."""


class UserError(Exception):
    """Something the user can mend: the message says what is wrong, in which file, and what to do."""
