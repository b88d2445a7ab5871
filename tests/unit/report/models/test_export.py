"""`microsr export` of a model: the file, its card beside it, and what is refused."""

import json
import re

import numpy as np
import pytest
import yaml

from microsr.cli import main
from microsr.core.errors import UserError
from microsr.info import describe
from microsr.networks import onnx_file
from microsr.networks.families import build_g1
from microsr.networks.model_file import load_generator, save_generator
from microsr.networks.safetensors_file import load_model
from microsr.report.models.export import export_model
from microsr.volume.storage import Volume, write_volume

FACTS = {
    "kind": "posterior", "network": "compact", "sampler": True, "window_hu": [-1000.0, 400.0], "seed": 7, "steps": 30,
    "clinical_spacing_mm": 0.625, "micro_spacing_mm": 0.078, "provenance": {"microsr": "0.2.0", "code": "c0de"},
}  # fmt: skip


@pytest.fixture
def model(tmp_path):
    """A generator.pt."""
    save_generator(tmp_path / "generator.pt", build_g1("compact", 4, True), FACTS)
    return tmp_path / "generator.pt"


def head(card):
    """The YAML before the card's text."""
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", card.read_text(encoding="utf-8"), re.DOTALL)[1])


def test_a_model_is_written_with_its_card_and_record(model, tmp_path):
    output = tmp_path / "out/lungs.safetensors"
    main(["export", str(model), "--output", str(output), "--license", "MIT"])
    assert load_model(output)[1] == load_generator(model)[1] == FACTS
    card = (tmp_path / "out/lungs.md").read_text(encoding="utf-8")
    assert "# lungs\n" in card and "--model lungs.safetensors" in card and describe(model)["checksum"] in card
    assert head(tmp_path / "out/lungs.md") | {"tags": []} == {
        "license": "mit", "library_name": "microsr", "pipeline_tag": "image-to-image", "tags": [],
    }  # fmt: skip
    record = json.loads((tmp_path / "out/lungs.safetensors.run.json").read_text(encoding="utf-8"))
    assert record["step"] == "export.model" and list(record["inputs"].values()) == [describe(model)["checksum"]]


def test_without_an_ending_it_is_a_folder_as_sites_of_models_have_it(model, tmp_path):
    for _ in range(2):  # over itself
        export_model(model, tmp_path / "lungs")
        assert sorted(path.name for path in (tmp_path / "lungs").iterdir()) == ["README.md", "model.safetensors"]
    assert "--model model.safetensors" in (tmp_path / "lungs/README.md").read_text(encoding="utf-8")
    assert head(tmp_path / "lungs/README.md")["license"] == "other"
    assert load_model(tmp_path / "lungs/model.safetensors")[1] == FACTS


def test_what_was_exported_can_be_exported_again_to_the_same_bytes(model, tmp_path):
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    export_model(model, first)
    export_model(first, second)
    assert first.read_bytes() == second.read_bytes()


def test_info_says_the_same_of_both_files(model, tmp_path):
    export_model(model, tmp_path / "lungs.safetensors")
    first, second = (describe(path) for path in (model, tmp_path / "lungs.safetensors"))
    assert second["kind"] == "model" and second.pop("checksum") != first.pop("checksum")
    assert second.pop("path") != first.pop("path") and first == second


def test_onnx_has_a_card_that_says_how_to_run_it(model, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_file, "save_onnx", lambda path, network, facts: path.write_bytes(bytes([network.scale])))
    export_model(model, tmp_path / "lungs.onnx")
    assert (tmp_path / "lungs.onnx").read_bytes() == b"\4"
    card = (tmp_path / "lungs.onnx.md").read_text(encoding="utf-8")
    assert 'onnxruntime.InferenceSession("lungs.onnx")' in card and "for k in (2, 4)}" in card
    assert "microsr superresolve" not in card


def test_nothing_that_is_no_earlier_output_is_replaced(model, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "README.md").write_text("of my own", encoding="utf-8")
    (folder / "thesis.txt").write_text("of my own", encoding="utf-8")
    with pytest.raises(UserError, match="mine: exists and is no earlier output of this kind; give another name"):
        export_model(model, folder)
    with pytest.raises(UserError, match=r"README\.md: exists and is no earlier output of this kind"):
        export_model(model, folder / "README.safetensors")
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "thesis.txt"]


def test_what_cannot_be_written_is_refused(model, tmp_path):
    with pytest.raises(UserError, match=r"lungs\.h5: no model is written as \.h5; give a name that ends in \.safetens"):
        export_model(model, tmp_path / "lungs.h5")
    export_model(model, tmp_path / "lungs.safetensors")
    with pytest.raises(UserError, match="is the model itself; give another name"):
        export_model(tmp_path / "lungs.safetensors", tmp_path / "lungs.safetensors")
    (tmp_path / "text.txt").write_text("no model", encoding="utf-8")
    with pytest.raises(UserError, match="is no microsr model"):
        export_model(tmp_path / "text.txt", tmp_path / "other.safetensors")
    assert not (tmp_path / "other.safetensors").exists()


def test_flags_of_the_other_kind_are_refused(model, tmp_path, capsys):
    write_volume(tmp_path / "ct.ome.zarr", Volume(np.zeros((1, 16, 16), np.int16), (1, 1, 1)))
    for given, flag, said in (
        (model, "--slices", "is a model, and --slices is for a volume; leave it out"),
        (tmp_path / "ct.ome.zarr", "--license", "is a volume, and --license is for a model; leave it out"),
    ):
        with pytest.raises(SystemExit):
            main(["export", str(given), flag, "0:1", "--output", str(tmp_path / "out.nii.gz")])
        assert said in capsys.readouterr().err
    main(["export", str(tmp_path / "ct.ome.zarr"), "--output", str(tmp_path / "out.nii.gz")])
    assert (tmp_path / "out.nii.gz").is_file()
