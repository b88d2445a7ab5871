"""The trained model as a safetensors file, for other people and programs: weights and text, which nothing can run.

It holds what generator.pt holds. The weights are its tensors; all else is JSON, under METADATA in its header, with a
SHA-256 over that and the tensors, as safetensors itself does not notice a flipped bit. `load_model` reads both kinds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from microsr.core.errors import UserError, brief
from microsr.core.files import replacing
from microsr.networks.model_file import MODEL, build_model, load_generator, read_archive

METADATA = "microsr"
"""The only entry of the header's metadata: the order of several would change from run to run."""
PARTS = ("format", "version", "facts", "architecture")
"""What a model file holds beside the weights."""
CHECKSUM = "sha256"
START = 9
"""Bytes of a header's length and its first one."""
LARGEST = 100_000_000
"""Bytes of the longest header that safetensors allows."""


def is_safetensors(path: Path) -> bool:
    """Whether a file begins as a safetensors file does: the length of a header, and JSON."""
    try:
        with path.open("rb") as stream:
            start = stream.read(START)
    except OSError:
        return False
    return len(start) == START and start.endswith(b"{") and int.from_bytes(start[:-1], "little") <= LARGEST


def load_model(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """G1 in evaluation mode on the CPU and its `model_file.Facts`, of a generator.pt or a safetensors file, told by
    its content; runs no code from it.

    Raises
    ------
    UserError
        As `model_file.load_generator`; or it is a damaged or foreign safetensors file.
    """
    path = Path(path)
    return build_model(path, _read(path)) if is_safetensors(path) else load_generator(path)


def read_content(path: Path) -> dict[str, Any]:
    """What a model file of either kind holds, of one that `load_model` has read: PARTS and weights."""
    return _read(path) if is_safetensors(path) else read_archive(path, "cpu")


def save_safetensors(path: Path, content: Mapping[str, Any]) -> None:
    """Write what `read_content` gives as a safetensors file, whole or not at all, the same bytes each time.

    Raises
    ------
    UserError
        There is no room or no right to write it.
    """
    # Without gaps and in plain order, whatever order a training left them in.
    weights = {name: tensor.contiguous() for name, tensor in content["weights"].items()}
    parts = {name: content[name] for name in PARTS}
    text = json.dumps({**parts, CHECKSUM: _checksum(parts, weights)}, ensure_ascii=False, allow_nan=False)
    with replacing(path) as temporary:
        temporary.write_bytes(save(weights, {METADATA: text}))


def _read(path: Path) -> dict[str, Any]:
    """Content of a safetensors file that is whole and a model of microsr."""
    try:
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {}).get(METADATA)
            weights = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        parts = text and json.loads(text)
        checksum = _checksum(parts, weights) if isinstance(parts, dict) else None
    except (SafetensorError, ValueError, TypeError, RuntimeError) as error:
        raise UserError(f"{path} is damaged ({brief(error)}); copy it again, or export it again") from None
    if not isinstance(parts, dict) or parts.get("format") != MODEL:
        raise UserError(
            f"{path} is a safetensors file of another program; give one that `microsr export` made of a trained model"
        )
    if parts.pop(CHECKSUM, None) != checksum:
        raise UserError(f"{path} is damaged (its checksum is another one); copy it again, or export it again")
    if unknown := sorted(parts.keys() - set(PARTS)):
        raise UserError(f"{path} holds {', '.join(unknown)}, which this program does not know; update microsr")
    return {**parts, "weights": weights}


def _checksum(parts: Mapping[str, Any], weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over what is told but the checksum itself, and the tensors, in whatever order they come."""
    told = {name: value for name, value in parts.items() if name != CHECKSUM}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True, ensure_ascii=False).encode())
    for name, tensor in sorted(weights.items()):
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
