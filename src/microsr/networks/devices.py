"""Where networks run, in which precision, and by which algorithms."""

from __future__ import annotations

import ctypes
import os
import sys

import torch

from microsr.core.errors import UserError


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


def available_cpus() -> int:
    """CPUs that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose_algorithms(deterministic: bool) -> None:
    """On a GPU, the same result from the same seed at the cost of speed, or the fastest way for these sizes; float32 is
    exact.
    """
    torch.backends.cudnn.benchmark = not deterministic
    torch.backends.cudnn.allow_tf32 = False  # what is meant to be float32 has more than 10 bits
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the GPU is first used
    if deterministic != torch.are_deterministic_algorithms_enabled():  # as asking loads PyTorch's compiler, for seconds
        torch.use_deterministic_algorithms(deterministic)


def keep_freed_memory() -> None:
    """With glibc, let the process keep what it frees, for its next allocations.

    Otherwise each large tensor is new memory, which the kernel clears page by page, for one thread at a time: with
    several threads that costs more than the arithmetic of a convolution. The process does not grow beyond its peak.
    """
    if not sys.platform.startswith("linux"):
        return
    trim_threshold, mmap_max = -1, -4
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # another C library
        return
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 1 << 30)
