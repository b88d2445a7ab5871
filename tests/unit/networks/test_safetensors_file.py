"""A model in safetensors is the model of generator.pt, bit for bit; no damaged or foreign file is taken for one."""

import json
import re

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from microsr.config import SCALES
from microsr.core.errors import UserError
from microsr.inference.upsamplers import Generator, upsample_slice
from microsr.networks import safetensors_file
from microsr.networks.families import FAMILIES, build_g1, family_of
from microsr.networks.model_file import load_generator, save_generator
from microsr.networks.safetensors_file import is_safetensors, load_model, read_content, save_safetensors

FACTS = {
    "kind": "posterior", "sampler": False, "window_hu": [-1000.0, 400.0], "seed": 1, "steps": 30,
    "clinical_spacing_mm": 0.6, "micro_spacing_mm": None,
    "provenance": {"settings": {"train": {"adam_betas": [0.5, 0.999]}, "case": "Müller|✓"}, "inputs": []},
}  # fmt: skip


def both(folder, network="compact", scale=8, sampler=False, **further):
    """The same model in both kinds of file."""
    torch.manual_seed(0)
    pt, safe = folder / "generator.pt", folder / "model.safetensors"
    g1 = build_g1(network, scale, sampler, further.get("slices", 1)).to(
        memory_format=torch.channels_last
    )  # as a training leaves it
    save_generator(pt, g1, FACTS | {"network": network, "sampler": sampler} | further)
    save_safetensors(safe, read_content(pt))
    return pt, safe


@pytest.fixture
def model(tmp_path):
    """A safetensors file with the smallest G1."""
    return both(tmp_path)[1]


def change(path, tensors=None, **parts):
    """Write a file anew with other parts, and the checksum that is right for them."""
    content = read_content(path)
    content["weights"] |= tensors or {}
    save_safetensors(path, content | parts)


def told(path):
    """What the header tells, and the tensors."""
    with safe_open(path, "pt") as file:
        return json.loads(file.metadata()["microsr"]), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def refused(path, what):
    with pytest.raises(UserError, match=what) as error:
        load_model(path)
    message = str(error.value)
    assert message.startswith(str(path)) and "\n" not in message and "; " in message and "/tmp/tmp" not in message


MODELS = [(network, scale, False) for network in FAMILIES for scale in (2, 8)]
MODELS += [(network, scale, True) for network in FAMILIES if family_of(network).sampler for scale in SCALES]


@pytest.mark.parametrize(("network", "scale", "sampler"), MODELS)
def test_both_files_give_the_same_network_facts_and_image_bit_for_bit(network, scale, sampler, tmp_path):
    pt, safe = both(tmp_path, network, scale, sampler)
    (old, old_facts), (new, facts) = load_generator(pt), load_model(safe)
    assert facts == old_facts and type(new) is type(old) and not new.training and new.scale == scale
    ours, theirs = new.state_dict(), old.state_dict()
    assert list(ours) == list(theirs) and all(torch.equal(ours[name], theirs[name]) for name in theirs)
    hu = np.random.default_rng(0).normal(-700, 200, (12, 14)).astype(np.int16)
    first, second = (upsample_slice(hu, 3, Generator(path, "cpu", "float32"), draw=2) for path in (pt, safe))
    assert first.std() > 0 and np.array_equal(first, second)


def test_a_model_of_neighbouring_slices_stays_one(tmp_path):
    pt, safe = both(tmp_path, sampler=True, slices=3, slice_mm=[0.5, 0.75])
    assert load_generator(pt)[1] == load_model(safe)[1]
    upsampler = Generator(safe, "cpu", "float32")
    assert upsampler.slices == 3 and upsampler.slice_mm == [0.5, 0.75]
    assert upsample_slice(np.full((3, 12, 14), -800, np.int16), 0, upsampler).shape == (96, 112)


def test_a_model_is_known_by_what_it_holds_not_by_its_name(tmp_path):
    pt, safe = both(tmp_path)
    assert not is_safetensors(pt) and is_safetensors(safe)
    for name in ("a.pt", "b.bin", "c"):
        (tmp_path / name).write_bytes(safe.read_bytes())
        assert load_model(tmp_path / name)[1] == load_model(pt)[1]
    (tmp_path / "a.safetensors").write_bytes(pt.read_bytes())  # which PyTorch itself takes for safetensors
    refused(tmp_path / "a.safetensors", "is damaged or no model file")


def test_the_same_model_gives_the_same_bytes_whichever_file_it_comes_from(tmp_path):
    pt, safe = both(tmp_path)
    for number, source in enumerate([pt, safe, pt, safe, pt, safe]):
        save_safetensors(tmp_path / f"{number}.safetensors", read_content(source))
        assert (tmp_path / f"{number}.safetensors").read_bytes() == safe.read_bytes()


def test_other_programs_read_the_weights_and_what_they_are(model):
    parts, weights = told(model)
    assert (parts["format"], parts["version"], parts["facts"]) == (
        "microsr generator",
        2,
        FACTS | {"network": "compact"},
    )
    assert parts["architecture"]["scale"] == 8 and len(parts["sha256"]) == 64
    assert sum(weight.numel() for weight in weights.values()) == parts["architecture"]["parameters"]


def test_a_flipped_byte_is_refused_unless_all_it_says_is_the_same(model):
    whole = model.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    weights, facts = load_model(model)[0].state_dict(), load_model(model)[1]
    for place in [*range(0, header, 7), *range(header, len(whole), 5003), len(whole) - 1]:
        model.write_bytes(whole[:place] + bytes([whole[place] ^ 0x04]) + whole[place + 1 :])
        try:
            g1, found = load_model(model)
        except UserError as error:
            assert re.search(r" is (damaged|a safetensors file of another program|no microsr model)", str(error)), place
            continue
        assert place < header, "only blanks between the parts of the header mean nothing"
        assert found == facts and all(torch.equal(weights[name], w) for name, w in g1.state_dict().items()), place


def test_a_file_cut_off_at_any_length_is_refused(model):
    whole = model.read_bytes()
    for length in [*range(9, len(whole), 5003), len(whole) - 1]:
        model.write_bytes(whole[:length])
        refused(model, r"is damaged \(.*\); copy it again, or export it again")
    model.write_bytes(whole[:5])
    refused(model, "is no microsr model; give the generator.pt")
    model.write_bytes(whole + b"more")
    refused(model, "is damaged")


def test_weights_and_facts_changed_by_hand_are_refused(model):
    parts, weights = told(model)
    name = next(iter(weights))
    for other, tensors in (
        (parts | {"facts": parts["facts"] | {"window_hu": [-1000.0, 500.0]}}, weights),
        (parts, weights | {name: weights[name] + 1}),
        (parts, {n: w for n, w in weights.items() if n != name}),
        (parts, {f"{n}.": w for n, w in weights.items()}),
        ({k: v for k, v in parts.items() if k != "sha256"}, weights),
    ):
        save_file(tensors, model, {"microsr": json.dumps(other)})
        refused(model, r"is damaged \(its checksum is another one\); copy it again")


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"microsr": "[]"}, {"microsr": '{"format": "another"}'}])
def test_a_safetensors_file_of_another_program_is_refused(metadata, model):
    save_file({"a": torch.zeros(2)}, model, metadata)
    refused(model, "is a safetensors file of another program; give one that `microsr export` made of a trained model")


def test_a_header_that_is_no_json_of_ours_is_refused(model):
    save_file({"a": torch.zeros(2)}, model, {"microsr": "{half"})
    refused(model, r"is damaged \(.*\); copy it again")


def test_what_a_newer_program_adds_is_refused(model):
    parts, weights = told(model)
    del parts["sha256"]
    parts |= {"further": 1, "more": {}}
    parts["sha256"] = safetensors_file._checksum(parts, weights)
    save_file(weights, model, {"microsr": json.dumps(parts)})
    refused(model, "holds further, more, which this program does not know; update microsr")


def test_all_that_is_asked_of_generator_pt_is_asked_of_it_and_it_is_named(model):
    facts = read_content(model)["facts"]
    change(model, version=3)
    refused(model, "has format version 3, this program reads 2; update microsr")
    change(model, version=2, facts={k: v for k, v in facts.items() if k != "seed"})
    refused(model, "facts.seed: is missing; train it again")
    change(model, facts=facts | {"network": "transformer"})
    refused(model, "has a 'transformer' network")
    change(model, {"more": torch.zeros(1)}, facts=facts)
    refused(model, r'weights that do not fit its compact G1 \(Unexpected key.*"more".*\)')


def test_weights_that_are_not_finite_are_refused(model):
    name = list(read_content(model)["weights"])[-1]
    change(model, {name: torch.full_like(read_content(model)["weights"][name], float("nan"))})
    refused(model, rf"weights that are not finite \({name}\)")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    refused(tmp_path / "absent.safetensors", "does not exist; train a model first")
    refused(tmp_path, "is a folder; give the generator.pt")


def test_a_full_disk_leaves_the_old_file(full_disk, model):
    content = read_content(model)
    large = content | {"weights": {"a": torch.zeros(200_000)}}
    with full_disk(600) as disk:
        save_safetensors(disk / "a.safetensors", content)
        before = (disk / "a.safetensors").read_bytes()
        with pytest.raises(UserError, match="make room"):
            save_safetensors(disk / "a.safetensors", large)
        assert (disk / "a.safetensors").read_bytes() == before
        assert [path.name for path in disk.iterdir()] == ["a.safetensors"]
