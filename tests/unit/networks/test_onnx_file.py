"""A model in ONNX gives, in onnxruntime, the image that PyTorch gives, of any size, and draws nothing itself."""

import json
import sys

import onnx
import pytest
import torch

from microsr.core.errors import UserError
from microsr.inference import upsamplers
from microsr.inference.upsamplers import Generator, standard_normal, upsample_slice
from microsr.networks import onnx_file
from microsr.networks.families import build_g1
from microsr.networks.layers import InstanceNorm
from microsr.networks.model_file import load_generator, save_generator
from microsr.networks.onnx_file import InHU, run_onnx, save_onnx

FACTS = {
    "window_hu": [-1000.0, 400.0], "seed": 3, "steps": 1, "clinical_spacing_mm": 0.6, "micro_spacing_mm": None,
    "provenance": {},
}  # fmt: skip
MODELS = [("compact", 8, True, 3), ("efficient", 8, False, 1), ("resnet", 4, False, 1), ("compact", 2, False, 1)]


@pytest.fixture(params=MODELS, ids=str)
def model(request, tmp_path, small_resnet):
    """generator.pt of a family, whose network matters beside the interpolated image."""
    network, scale, sampler, slices = request.param
    torch.manual_seed(0)
    g1 = build_g1(network, scale, sampler, slices)
    for name, weight in g1.named_parameters():
        if name.endswith("tail.weight"):
            weight.data *= 10
    for norm in (module for module in g1.modules() if isinstance(module, InstanceNorm)):
        norm.running_mean.normal_(0, 0.1)
        norm.running_var.uniform_(0.5, 1.5)
    save_generator(tmp_path / "generator.pt", g1, FACTS | {"network": network, "sampler": sampler, "slices": slices})
    return tmp_path / "generator.pt"


def test_onnxruntime_gives_the_image_of_pytorch_and_of_superresolve(model, tmp_path):
    """Rounding: a step in float32 is 2^-24 of what is rounded. HU go up to 2000; a sum of a thousand products takes a
    thousand such steps, which to either side, as rounding goes, add to about thirty.
    """
    near = 2000 * 2**-24 * 30
    g1, facts = load_generator(model)
    network = InHU(g1, facts)
    save_onnx(tmp_path / "m.onnx", network, facts)
    random = torch.Generator().manual_seed(5)
    for batch, size in ((1, (11, 8)), (3, (9, 16))):
        scan = torch.empty(batch, network.slices, *size).normal_(-600, 300, generator=random)
        scan[0, network.slices // 2, 4, 4] = 1500  # beyond the window
        inputs = [scan, *network.draw(batch, size, random)]
        made = run_onnx(tmp_path / "m.onnx", network, inputs)
        with torch.no_grad():
            wanted = network(*inputs)
        assert made.shape == (batch, 1, *(g1.scale * n for n in size)) and made.std() > 50
        assert (made - wanted).abs().max() < near
        if network.noise_scales:  # other planes, another image
            other = run_onnx(tmp_path / "m.onnx", network, [scan, *network.draw(batch, size, random)])
            assert (other - made).abs().max() > 100 * near
    way = Generator(model, "cpu", "float32")
    slice_hu = scan[:1].round()
    planes = [standard_normal(plane, upsamplers.LEVELS) for plane in way.draw(7, size)]
    ours = torch.as_tensor(upsample_slice(slice_hu[0].numpy(), 7, way))
    exported = run_onnx(tmp_path / "m.onnx", network, [slice_hu, *planes])[0, 0]
    assert (exported - ours).abs().max() < near
    saved = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(saved, full_check=True)
    assert json.loads(saved.metadata_props[0].value) == facts and "Not for diagnosis" in saved.doc_string
    assert not {node.op_type for node in saved.graph.node} & {"RandomNormal", "RandomNormalLike", "RandomUniform"}
    shapes = {i.name: [d.dim_param or d.dim_value for d in i.type.tensor_type.shape.dim] for i in saved.graph.input}
    assert shapes["image"] == ["batch", network.slices, "y", "x"] and list(shapes) == network.names
    text = (tmp_path / "m.onnx").read_bytes()
    assert b"site-packages" not in text and str(onnx_file.__file__).encode() not in text


def test_without_its_libraries_it_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    network = InHU(build_g1("compact", 2), FACTS)
    with pytest.raises(UserError, match=r"needs the library onnxscript, .* python -m pip install 'microsr\[export\]'"):
        save_onnx(tmp_path / "m.onnx", network, FACTS)


def test_a_file_that_gives_another_image_gets_no_name(monkeypatch, tmp_path):
    network = InHU(build_g1("compact", 2), FACTS)
    monkeypatch.setattr(onnx_file, "run_onnx", lambda path, network, inputs: network(*inputs).detach() + 2)
    with pytest.raises(UserError, match=r"m\.onnx: onnxruntime is 2 HU off in its image; update onnxruntime and torch"):
        save_onnx(tmp_path / "m.onnx", network, FACTS)
    assert not list(tmp_path.iterdir())
