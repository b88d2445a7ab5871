"""The trained model as ONNX, for programs without PyTorch: HU and random planes in, HU out.

Bringing HU into the window and back, and what lies beyond it, are part of the graph, so the image is that of
`microsr superresolve` in float32 but for rounding. The random planes are inputs: nothing is drawn inside. Batch, rows
and columns may be of any number.
"""

from __future__ import annotations

import importlib
import json
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import microsr
from microsr.core.errors import UserError
from microsr.core.files import replacing
from microsr.core.streams import Stream, torch_stream
from microsr.networks.families import draw_noise, own_slice
from microsr.networks.layers import bicubic_upsample
from microsr.physics.window import to_hu

LIBRARIES = ("onnx", "onnxscript", "onnxruntime")
"""What is needed beside PyTorch: the extra `export`."""
OPSET = 18
SMALLEST = 8
"""Rows or columns of an image, at least."""
NEAR_HU = 0.01
"""How far an image may be off: far less than CT's steps of 1 HU, and far more than rounding in float32."""
IMAGE, OUTPUT = "image", "super_resolved"
ABOUT = (
    "Super-resolution of clinical CT, {scale} times in-plane, by microsr {version}. Not for diagnosis: what is finer "
    "than the scan resolves is plausible, not measured. image: HU [batch, {slices}, y, x], the slice to magnify in the "
    "middle. noise_<k>: independent standard normal numbers [batch, 1, k y, k x]. super_resolved: HU "
    "[batch, 1, {scale} y, {scale} x]."
)


class InHU(nn.Module):
    """A G1 that takes and gives HU; what exceeds its window is added back by interpolation."""

    def __init__(self, g1: nn.Module, facts: dict[str, Any]) -> None:
        """facts: `model_file.Facts`."""
        super().__init__()
        self.g1, self.scale, self.noise_scales = g1, g1.scale, tuple(g1.noise_scales)
        self.slices, (self._low, self._high) = facts.get("slices", 1), facts["window_hu"]

    def forward(self, image: Tensor, *noise: Tensor) -> Tensor:
        """HU [batch, slices, h, w] and a plane at each of `noise_scales` to HU [batch, 1, scale * h, scale * w]."""
        inside = image.clamp(self._low, self._high)
        scale = 2 / (self._high - self._low)
        a = (inside * scale + (-1 - self._low * scale)).clamp(-1, 1)
        a_sr = to_hu(self.g1(a, list(noise)), (self._low, self._high))
        return a_sr + bicubic_upsample(own_slice(image - inside), self.scale)

    @property
    def names(self) -> list[str]:
        """Of the inputs."""
        return [IMAGE, *(f"noise_{scale}" for scale in self.noise_scales)]

    def draw(self, batch: int, size: tuple[int, int], random: torch.Generator) -> list[Tensor]:
        """Random planes for images of a size (rows, columns)."""
        return draw_noise(self.noise_scales, batch, size, random, "cpu")


def save_onnx(path: Path, network: InHU, facts: dict[str, Any]) -> None:
    """Write the network as ONNX, whole or not at all, with `model_file.Facts` as metadata.

    Raises
    ------
    UserError
        A library is not installed, onnxruntime makes another image of it, or there is no room or no right to write it.
    """
    check_libraries(path)
    image = torch.linspace(-1000, 200, 12 * 14).reshape(1, 1, 12, 14).repeat(2, network.slices, 1, 1)
    planes = network.draw(2, (12, 14), torch_stream(Stream.EXPORTED, 0, device="cpu"))
    batch, y, x = torch.export.Dim("batch"), *(torch.export.Dim(name, min=SMALLEST) for name in ("y", "x"))
    of_planes = tuple({0: batch, 2: k * y, 3: k * x} for k in network.noise_scales)
    shapes = ({0: batch, 2: y, 3: x}, *([of_planes] if planes else []))
    log = logging.getLogger("torch.onnx")
    level = log.level
    log.setLevel(logging.ERROR)  # it tells of libraries that are not there, and that none of this needs
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                network.eval(), (image, *planes), dynamo=True, opset_version=OPSET, verbose=False,
                input_names=network.names, output_names=[OUTPUT], dynamic_shapes=shapes,
            )  # fmt: skip
    finally:
        log.setLevel(level)
    model = program.model_proto
    for node in (*model.graph.node, *(node for function in model.functions for node in function.node)):
        del node.metadata_props[:]  # the exporter's, which name files of this machine
        node.doc_string = ""
    model.producer_name, model.producer_version = "microsr", microsr.__version__
    model.doc_string = ABOUT.format(scale=network.scale, slices=network.slices, version=microsr.__version__)
    del model.metadata_props[:], model.graph.metadata_props[:]
    model.metadata_props.add(key="microsr", value=json.dumps(facts, ensure_ascii=False))
    with replacing(path) as part:
        part.write_bytes(model.SerializeToString(deterministic=True))
        if (far := _compare(part, network)) > NEAR_HU:
            raise UserError(f"{path}: onnxruntime is {far:.2g} HU off in its image; update onnxruntime and torch")


def check_libraries(path: Path) -> None:
    """Refuse to write `path` without what it takes."""
    for library in LIBRARIES:
        try:
            importlib.import_module(library)
        except ImportError:
            raise UserError(
                f"{path}: needs the library {library}, which is not installed; install it: python -m pip install "
                "'microsr[export]'"
            ) from None


def _compare(path: Path, network: InHU) -> float:
    """How far the file's image of a made-up scan is from the network's, HU, at most."""
    rows, columns = SMALLEST + 1, SMALLEST + 4  # not those that it was exported with
    random = torch_stream(Stream.EXPORTED, 0, device="cpu")
    scan = torch.empty(1, network.slices, rows, columns).normal_(-600, 500, generator=random)
    inputs = [scan, *network.draw(1, (rows, columns), random)]
    with torch.no_grad():
        return float((run_onnx(path, network, inputs) - network(*inputs)).abs().max())


def run_onnx(path: Path, network: InHU, inputs: Sequence[Tensor]) -> Tensor:
    """What onnxruntime makes of `inputs`, the image and the planes of `network`."""
    runtime = importlib.import_module("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    given = {name: value.numpy() for name, value in zip(network.names, inputs, strict=True)}
    return torch.from_numpy(session.run(None, given)[0])
