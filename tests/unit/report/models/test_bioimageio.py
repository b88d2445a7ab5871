"""A package for bioimage.io: what it says fits its tensors, it holds no code, and bioimage.io's own program runs it."""

import os
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from microsr.core.errors import UserError
from microsr.networks.families import build_g1
from microsr.networks.model_file import save_generator
from microsr.networks.onnx_file import InHU, run_onnx
from microsr.networks.safetensors_file import load_model
from microsr.report.models.export import export_model

ROOT = Path(__file__).parents[4]
VALIDATORS = ROOT / ".venv-validators/bin"
"""Made by `make validators`."""
FACTS = {
    "kind": "posterior", "network": "compact", "sampler": True, "slices": 3, "slice_mm": [0.6, 0.6],
    "window_hu": [-1000.0, 400.0], "seed": 7, "steps": 30, "clinical_spacing_mm": 0.625, "micro_spacing_mm": 0.156,
    "provenance": {"microsr": "0.2.0"},
}  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model that sees neighbouring slices and takes random planes."""
    path = tmp_path_factory.mktemp("model") / "generator.pt"
    torch.manual_seed(0)
    save_generator(path, build_g1("compact", 4, True, 3), FACTS)
    return path


@pytest.fixture(scope="module")
def package(model):
    """Its package."""
    export_model(model, model.with_name("lungs.zip"), title="Lungs: of 3", license="CC-BY-4.0")
    return model.with_name("lungs.zip")


@pytest.fixture
def unpacked(package, tmp_path):
    """What is in it."""
    with zipfile.ZipFile(package) as archive:
        archive.extractall(tmp_path)
    return tmp_path


def test_it_holds_tensors_pictures_and_text_alone(unpacked):
    names = {path.name for path in unpacked.iterdir()}
    tensors = {"image.npy", "noise_2.npy", "noise_4.npy", "super_resolved.npy"}
    assert names == tensors | {"rdf.yaml", "weights.onnx", "cover.png", "README.md"}
    assert 'onnxruntime.InferenceSession("weights.onnx")' in (unpacked / "README.md").read_text(encoding="utf-8")


def test_what_it_says_of_its_tensors_is_so(unpacked, model):
    told = yaml.safe_load((unpacked / "rdf.yaml").read_text(encoding="utf-8"))
    assert told["name"] == "microsr Lungs  of 3" and told["license"] == "CC-BY-4.0"
    authors = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["authors"]
    assert told["authors"] == authors
    image = np.load(unpacked / "image.npy")
    for tensor in (*told["inputs"], *told["outputs"]):
        values = np.load(unpacked / tensor["test_tensor"]["source"])
        batch, channel, y, x = tensor["axes"]
        assert batch == {"type": "batch"} and len(channel["channel_names"]) == values.shape[1]
        for axis, length, whole in ((y, values.shape[2], image.shape[2]), (x, values.shape[3], image.shape[3])):
            assert length * axis["scale"] == pytest.approx(whole * 0.625), "the same field"
        assert values.dtype == np.float32
    g1, facts = load_model(model)
    network = InHU(g1, facts)
    inputs = [torch.from_numpy(np.load(unpacked / f"{name}.npy")) for name in network.names]
    with torch.no_grad():
        made = network(*inputs)
    np.testing.assert_array_equal(made.numpy(), np.load(unpacked / "super_resolved.npy"))
    assert (run_onnx(unpacked / "weights.onnx", network, inputs) - made).abs().max() < 0.01


def test_it_needs_a_licence(model, tmp_path):
    with pytest.raises(
        UserError, match=r"lungs\.zip: bioimage\.io takes no model without a licence; give one, as --lic"
    ):
        export_model(model, tmp_path / "lungs.zip")
    assert not (tmp_path / "lungs.zip").exists()


def test_bioimageio_core_finds_it_valid_and_runs_it(package, tmp_path):
    program = VALIDATORS / "bioimageio"
    if not program.exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no bioimageio.core: make validators")
    environment = os.environ | {"BIOIMAGEIO_CACHE_PATH": str(tmp_path), "COLUMNS": "200"}
    done = subprocess.run(
        [program, "test", package], env=environment, capture_output=True, text=True, check=False, cwd=tmp_path
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "Successfully created ModelDescr" in said and "Reproduce test outputs from test inputs (onnx)" in said
    assert "❌" not in said
