"""microsr: micro-CT-level super-resolution of clinical lung CT (Zheng et al. 2020)."""

__version__ = "0.1.0"

SCALE = 8
"""In-plane magnification; the paper's only one (Zheng et al. 2020, section 2), built into every network."""


class UserError(Exception):
    """Something the user can mend: the message says what is wrong, in which file, and what to do."""


def brief(error: Exception) -> str:
    """What an exception says in its first line, or else its name."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:160] if lines else type(error).__name__
