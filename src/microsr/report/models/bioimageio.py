"""A trained model as a package for bioimage.io: its ONNX file, described, with a test image and what it makes of it.

Out: a .zip of rdf.yaml (model description 0.5), weights.onnx, test tensors (.npy), a cover and the card. HU go in and
come out, as in the ONNX file, so it needs no pre- and postprocessing. The random planes are inputs.
"""

from __future__ import annotations

import re
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from torch import Tensor

from microsr.core.errors import UserError
from microsr.core.files import replacing
from microsr.core.streams import Stream, torch_stream
from microsr.networks.families import own_slice
from microsr.networks.layers import bicubic_upsample, nearest_upsample
from microsr.networks.onnx_file import IMAGE, OPSET, OUTPUT, SMALLEST, InHU, check_libraries, save_onnx
from microsr.report.models.card import PAPER, PAPER_PAGE, TAGS, write_card
from microsr.report.models.description import Description

FORMAT = "0.5.4"
RDF, ONNX, COVER, CARD = "rdf.yaml", "weights.onnx", "cover.png", "README.md"
AUTHORS = [{"name": "The microsr developers"}]
NO_NAME = r"[^\w +()-]"
"""What bioimage.io has in no name."""
TEST_SIZE, COARSE = (48, 64), 8
"""Rows and columns of the test image, and pixels between the numbers that it is drawn by."""
SHOWN_HU = (-1200.0, 200.0)
"""Black and white of the cover."""
SIZE_OF_COVER = (512, 384)
"""Columns and rows of the cover."""


def save_package(output: Path, network: InHU, known: Description) -> None:
    """Write the package, whole or not at all.

    Raises
    ------
    UserError
        It has no licence; or as `networks.onnx_file.save_onnx`.
    """
    if not known.license:
        raise UserError(f"{output}: bioimage.io takes no model without a licence; give one, as --license CC-BY-4.0")
    check_libraries(output)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        save_onnx(folder / ONNX, network, known.facts)
        inputs = _draw_inputs(network)
        with torch.no_grad():
            made = network(*inputs)  # PyTorch's: whoever tests the package compares it with that of another program
        for name, tensor in zip([*network.names, OUTPUT], [*inputs, made], strict=True):
            np.save(folder / f"{name}.npy", tensor.numpy())
        _draw_cover(own_slice(inputs[0]), made, network.scale).save(folder / COVER)
        (folder / CARD).write_text(write_card(known, ONNX), encoding="utf-8")
        text = yaml.safe_dump(describe_package(network, known), sort_keys=False, allow_unicode=True)
        (folder / RDF).write_text(text, encoding="utf-8")
        with replacing(output) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(folder.iterdir()):
                archive.write(file, file.name)


def describe_package(network: InHU, known: Description) -> dict[str, Any]:
    """The content of rdf.yaml (https://bioimage-io.github.io/spec-bioimage-io)."""
    pixel = known.facts["clinical_spacing_mm"]

    def tensor(name: str, about: str, channels: list[str], times: int) -> dict[str, Any]:
        axes = [
            {
                "type": "space",
                "id": axis,
                "size": {"min": SMALLEST, "step": 1} if name == IMAGE else {"tensor_id": IMAGE, "axis_id": axis},
                "scale": (pixel or 1.0) / times,
                **({"unit": "millimeter"} if pixel else {}),
            }
            for axis in ("y", "x")
        ]
        return {
            "id": name,
            "description": about,
            "axes": [{"type": "batch"}, {"type": "channel", "channel_names": channels}, *axes],
            "data": {"type": "float32"},
            "test_tensor": {"source": f"{name}.npy"},
        }

    slices = [f"slice_{number}" for number in range(network.slices)]
    return {
        "format_version": FORMAT,
        "type": "model",
        "name": f"microsr {re.sub(NO_NAME, ' ', known.title)}"[:128],
        "description": f"Super-resolution of clinical CT to micro-CT level, {network.scale} times in-plane. Not for "
        "diagnosis: what is finer than the scan resolves is plausible, not measured.",
        "authors": AUTHORS,
        "cite": [{"text": PAPER, "url": PAPER_PAGE}],
        "license": known.license,
        "documentation": CARD,
        "covers": [COVER],
        "tags": TAGS,
        "inputs": [
            tensor(IMAGE, "HU of a clinical CT; the slice to magnify is the middle channel", slices, 1),
            *(
                tensor(name, "independent standard normal numbers: others give another image", ["noise"], times)
                for name, times in zip(network.names[1:], network.noise_scales, strict=True)
            ),
        ],
        "outputs": [tensor(OUTPUT, "HU of the magnified slice", ["super_resolved"], network.scale)],
        "weights": {"onnx": {"source": ONNX, "opset_version": OPSET}},
    }


def _draw_inputs(network: InHU) -> list[Tensor]:
    """A made-up scan, smooth, and its random planes."""
    random = torch_stream(Stream.EXPORTED, 0, 1, device="cpu")
    coarse = torch.empty(1, network.slices, TEST_SIZE[0] // COARSE, TEST_SIZE[1] // COARSE)
    scan = bicubic_upsample(coarse.normal_(-650, 250, generator=random), COARSE)
    return [scan, *network.draw(1, TEST_SIZE, random)]


def _draw_cover(scan: Tensor, made: Tensor, scale: int) -> Image.Image:
    """The left half of the scan, each pixel as a block, beside the right half of what is made of it."""
    low, high = SHOWN_HU
    whole = torch.cat(
        [half.chunk(2, dim=-1)[k] for k, half in enumerate((nearest_upsample(scan, scale), made))], dim=-1
    )
    grey = ((whole[0, 0] - low) / (high - low)).clamp(0, 1).mul(255).round().byte().numpy()
    return Image.fromarray(grey).resize(SIZE_OF_COVER, Image.Resampling.NEAREST)
