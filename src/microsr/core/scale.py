"""By how much is magnified."""

SCALE = 8
"""In-plane magnification; the paper's only one (Zheng et al. 2020, section 2), built into every network."""
