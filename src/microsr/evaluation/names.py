"""What methods and modalities are called in figures and tables, and in which order they stand."""

from __future__ import annotations

METHOD_NAMES = {
    "truth": "Truth", "thick_truth": "Thick truth", "noise_free": "Noise-free", "nearest": "Nearest",
    "proposed": "Proposed", "bicubic": "Bicubic", "cyclegan": "CycleGAN",
    "proposed_paper": "Proposed, weights 1", "proposed_no_cycle": "Proposed, no cycle",
    "regression": "Regression", "posterior": "Posterior", "posterior_mean": "Posterior mean",
}  # fmt: skip
"""In their order. The first three are what is known of a simulated case (config.REFERENCES), no methods."""
MODALITY_NAMES = {"clinical": "clinical CT", "micro": "uCT"}
DEFAULT_TRAINING_SETS = ("pooled", "none")


def method_name(label: str) -> str:
    """`proposed/pooled` as a reader sees it: the method's name, and the training set unless it is the usual one."""
    method, _, training_set = label.partition("/")
    name = METHOD_NAMES.get(method, method)
    return name if not training_set or training_set in DEFAULT_TRAINING_SETS else f"{name} ({training_set})"


def method_rank(label: str) -> tuple[int, str]:
    """Key to sort `proposed` or `proposed/pooled` by: the paper's order of methods, then all others by name."""
    known, method = list(METHOD_NAMES), label.partition("/")[0]
    return (known.index(method) if method in known else len(known)), label
