"""microsr: micro-CT-level super-resolution of clinical lung CT (Zheng et al. 2020)."""

__version__ = "0.2.0"
