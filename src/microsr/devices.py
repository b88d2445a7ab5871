"""Where networks run, in which precision, and by which algorithms."""

from __future__ import annotations

import os

import torch

from microsr import UserError


def choose_device(wanted: str) -> str:
    """ "cuda" or "cpu"; "auto" takes the GPU if there is one.

    Raises
    ------
    UserError
        A GPU is asked for and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise UserError("compute.device is 'cuda', but no GPU is available; set it to 'auto' or 'cpu'")
    return "cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu"


def choose_precision(wanted: str, device: str) -> str:
    """ "float32" or "bfloat16"; "auto" takes bfloat16 where the hardware has units for it."""
    if wanted != "auto":
        return wanted
    if device != "cpu":
        able = torch.cuda.get_device_capability() >= (8, 0)
    else:
        able = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if able else "float32"


def choose_algorithms(deterministic: bool) -> None:
    """On a GPU, the same result from the same seed at the cost of speed, or the fastest way for these sizes; float32 is exact."""
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.allow_tf32 = False  # what is meant to be float32 has more than 10 bits
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the GPU is first used
    torch.use_deterministic_algorithms(deterministic)
