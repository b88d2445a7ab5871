"""States and model files: they survive kills, full disks and power cuts, and no damaged or foreign file is taken for
one.
"""

import itertools
import json
import os
import pickle
import re
import signal
import stat
import time

import numpy as np
import pytest
import torch
from choosing import QUARTERS
from pydantic import ValidationError

from microsr.core.errors import UserError
from microsr.networks.families import FAMILIES, build_g1
from microsr.networks.model_file import load_generator, save_generator
from microsr.training.checkpoint import explain_fresh, identify, load_state, save_state, state_folder

FACTS = {
    "network": "compact", "window_hu": [-1000.0, 400.0], "seed": 1, "steps": 30, "clinical_spacing_mm": 0.6,
    "micro_spacing_mm": None, "provenance": {"train": {"epochs": 2, "adam_betas": (0.5, 0.999)}},
}  # fmt: skip


def state_of(step, numbers=100):
    return {"step": step, "history": [{"loss": 0.5}], "pools": [[torch.full((numbers,), float(step))], []]}


def same(state, step):
    return (
        state["step"] == step
        and state["history"] == [{"loss": 0.5}]
        and len(state["pools"]) == 2
        and bool((state["pools"][0][0] == step).all())
        and state["pools"][1] == []
    )


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def model(tmp_path):
    """A model file with the smallest G1."""
    path = tmp_path / "generator.pt"
    save_generator(path, build_g1("compact", 8), FACTS)
    return path


def change(path, **parts):
    """Replace parts of a model file, as another program or version might have written them."""
    torch.save(torch.load(path, weights_only=True) | parts, path)


def refused(path, what):
    with pytest.raises(UserError, match=what) as error:
        load_generator(path)
    message = str(error.value)
    assert str(path) in message and "\n" not in message and "; " in message, "file, what, and what to do, in one line"


def test_only_the_newest_two_states_are_kept(tmp_path):
    for step in (1, 2, 10):
        save_state(tmp_path, step, state_of(step))
        assert same(load_state(tmp_path, "cpu"), step)
    assert names(tmp_path) == ["step-000000002.pt", "step-000000010.pt"]


def test_without_a_state_there_is_nothing_to_go_on_from(tmp_path, caplog):
    assert load_state(tmp_path, "cpu") is None
    assert load_state(tmp_path / "absent", "cpu") is None
    assert not caplog.records


def test_a_state_is_saved_where_no_folder_is_yet(tmp_path):
    save_state(tmp_path / "not" / "there", 1, state_of(1))
    assert load_state(tmp_path / "not" / "there", "cpu")["step"] == 1


def test_a_state_is_on_the_disk_before_it_gets_its_name_and_its_name_before_older_ones_go(tmp_path, monkeypatch):
    for step in (1, 2):
        save_state(tmp_path, step, state_of(step))
    seen, fsync = [], os.fsync

    def watched(descriptor):
        facts = os.fstat(descriptor)
        seen.append(
            ("folder" if stat.S_ISDIR(facts.st_mode) else facts.st_size, [n for n in names(tmp_path) if n[0] != "."])
        )
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    save_state(tmp_path, 3, state_of(3))
    before = ["step-000000001.pt", "step-000000002.pt"]
    whole = (tmp_path / "step-000000003.pt").stat().st_size
    assert seen == [(whole, before), ("folder", [*before, "step-000000003.pt"])]


def test_a_full_disk_is_an_os_error_that_leaves_the_states_and_the_model_as_they_were(full_disk):
    with full_disk(1000) as disk:
        for step in (1, 2):
            save_state(disk, step, state_of(step))
        save_generator(disk / "generator.pt", build_g1("compact", 8), FACTS)
        before = {path.name: path.read_bytes() for path in disk.iterdir()}
        with pytest.raises(OSError, match=r"No space left|File too large"):
            save_state(disk, 3, state_of(3, numbers=500_000))
        with pytest.raises(OSError, match=r"No space left|File too large"):
            save_generator(disk / "generator.pt", build_g1("resnet", 8), FACTS | {"network": "resnet"})
        assert {path.name: path.read_bytes() for path in disk.iterdir()} == before
        assert same(load_state(disk, "cpu"), 2)
        save_state(disk, 4, state_of(4))
        assert same(load_state(disk, "cpu"), 4), "there is room again"


def test_what_a_killed_attempt_left_goes_with_the_next_save(tmp_path):
    (tmp_path / ".step-000000007.pt.part").write_bytes(b"half")
    assert load_state(tmp_path, "cpu") is None
    save_state(tmp_path, 1, state_of(1))
    assert names(tmp_path) == ["step-000000001.pt"]


def save_for_ever(folder, step, reports):
    """What a training does, in a process of its own: save and tell, until killed."""
    try:
        signal.alarm(20)
        torch.set_num_threads(1)  # the parent's thread pool does not survive a fork
        while True:
            step += 1
            save_state(folder, step, state_of(step, numbers=1_000_000))
            os.write(reports, step.to_bytes(8, "big"))
    finally:
        os._exit(1)


def test_kills_at_any_moment_of_a_save_leave_the_last_state_or_the_one_being_saved(tmp_path, caplog):
    random, step, halves = np.random.default_rng(0), 0, 0
    for _ in range(25):
        read_end, write_end = os.pipe()
        child = os.fork()
        if child == 0:
            save_for_ever(tmp_path, step, write_end)
        os.close(write_end)
        try:
            told = os.read(read_end, 8)
            time.sleep(random.uniform(0, 0.06))
        finally:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        while more := os.read(read_end, 1 << 16):
            told += more
        os.close(read_end)
        halves += any(name.endswith(".part") for name in names(tmp_path))
        state = load_state(tmp_path, "cpu")
        saved = int.from_bytes(told[-8:], "big")
        assert saved > step and state["step"] in (saved, saved + 1) and same(state, state["step"])
        step = state["step"]
    assert not caplog.records, "no file counted as a state before it was whole"
    assert halves > 0, "some kills came while a file was being written"


def test_a_state_cut_off_at_any_length_is_passed_over(tmp_path, caplog):
    for step in (5, 6):
        save_state(tmp_path, step, state_of(step))
    newest = tmp_path / "step-000000006.pt"
    whole = newest.read_bytes()
    for length in [*range(0, len(whole), 41), len(whole) - 1]:
        newest.write_bytes(whole[:length])
        caplog.clear()
        assert same(load_state(tmp_path, "cpu"), 5), length
        (message,) = caplog.messages
        assert message == f"{newest} is damaged (its end is missing); going on from the one before it, step 5"


@pytest.mark.quarters("first", range(QUARTERS))
@pytest.mark.parametrize("first", range(QUARTERS))
def test_a_state_with_any_flipped_byte_is_passed_over_unless_all_it_says_is_the_same(tmp_path, caplog, first):
    for step in (5, 6):
        save_state(tmp_path, step, state_of(step))
    newest = tmp_path / "step-000000006.pt"
    whole = newest.read_bytes()
    values = whole.index(np.full(100, 6, np.float32).tobytes())
    for place, mask in itertools.product(range(first, len(whole), QUARTERS), (0x01, 0x10, 0xFF)):
        newest.write_bytes(whole[:place] + bytes([whole[place] ^ mask]) + whole[place + 1 :])
        caplog.clear()
        state = load_state(tmp_path, "cpu")
        assert same(state, 5 if caplog.records else 6), (place, mask)
        assert caplog.records or not values <= place < values + 400, (place, mask)


def test_a_state_with_a_part_marked_as_a_folder_is_passed_over(tmp_path):
    """torch.load leaves the memory for such a tensor as it finds it, which may even be right by luck."""
    for step in (5, 6):
        save_state(tmp_path, step, state_of(step))
    newest = tmp_path / "step-000000006.pt"
    whole = newest.read_bytes()
    marks = [entry.start() + 38 for entry in re.finditer(b"PK\x01\x02", whole)]
    assert len(marks) > 3
    for place in marks:
        newest.write_bytes(whole[:place] + bytes([whole[place] | 0x10]) + whole[place + 1 :])
        assert same(load_state(tmp_path, "cpu"), 5), place


def test_a_training_whose_states_are_all_damaged_starts_fresh_and_keeps_its_new_states(tmp_path, caplog):
    for step in (50, 60):
        save_state(tmp_path, step, state_of(step))
    for path in tmp_path.iterdir():
        path.write_bytes(b"PK")
    assert load_state(tmp_path, "cpu") is None
    (message,) = caplog.messages
    assert "step-000000060.pt is damaged (" in message and "step-000000050.pt is damaged (" in message
    assert message.endswith("; no readable state is left; starting fresh")
    for step in (10, 20):
        save_state(tmp_path, step, state_of(step))
        assert same(load_state(tmp_path, "cpu"), step)
    assert names(tmp_path) == ["step-000000010.pt", "step-000000020.pt"]


def test_a_file_of_another_kind_among_the_states_is_passed_over(tmp_path, model):
    folder = tmp_path / "state"
    save_state(folder, 5, state_of(5))
    for step, content in ((6, model.read_bytes()), (7, b"no archive")):
        (folder / f"step-{step:09d}.pt").write_bytes(content)
    assert same(load_state(folder, "cpu"), 5)


@pytest.mark.parametrize("error", [MemoryError, PermissionError, torch.OutOfMemoryError])
def test_a_state_that_could_not_be_read_for_another_reason_than_damage_is_not_given_up(error, tmp_path, monkeypatch):
    save_state(tmp_path, 5, state_of(5))

    def fail(*arguments, **options):
        raise error

    with monkeypatch.context() as patch, pytest.raises(error):
        patch.setattr(torch, "load", fail)
        load_state(tmp_path, "cpu")
    assert same(load_state(tmp_path, "cpu"), 5)


SETTINGS = {
    "train": {"learning_rate": 0.0004, "adam_betas": (0.5, 0.999)},
    "method": {"losses": {"cycle": 10}},
    "seed": 1,
}


@pytest.fixture
def patch_files(tmp_path):
    """Four patch files of two cases."""
    files = [tmp_path / "patches" / kind / f"train{case}.npy" for kind in ("clinical", "micro") for case in (1, 2)]
    for path in files:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(path))
    return files


def unfinished(tmp_path, files, settings=SETTINGS, code="c0de", step=1):
    """A training that got as far as its first state; returns its folder."""
    folder = state_folder(tmp_path / "state", identify(settings, files, code))
    save_state(folder, step, state_of(step))
    return folder


def reason(tmp_path, files, settings=SETTINGS, code="c0de"):
    """Why a training with these starts fresh."""
    identity = identify(settings, files, code)
    return explain_fresh(state_folder(tmp_path / "state", identity), identity)


def test_a_state_folder_says_what_made_it(tmp_path, patch_files):
    identity = identify(SETTINGS, patch_files, "c0de")
    folder = state_folder(tmp_path / "state", identity)
    assert names(folder) == ["settings.json"]
    written = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
    assert written == identity
    assert written["settings"]["train"] == {"learning_rate": 0.0004, "adam_betas": [0.5, 0.999]}
    assert [name for name, _ in written["inputs"]] == [
        "clinical/train1.npy", "clinical/train2.npy", "micro/train1.npy", "micro/train2.npy",
    ]  # fmt: skip
    assert str(tmp_path) not in (folder / "settings.json").read_text(encoding="utf-8")


def test_settings_data_their_order_and_code_decide_the_folder_but_not_where_the_data_lie(tmp_path, patch_files):
    def folder(settings=SETTINGS, files=patch_files, code="c0de"):
        return state_folder(tmp_path / "state", identify(settings, files, code))

    moved = [path.rename(tmp_path / f"{number}.npy") for number, path in enumerate(patch_files)]
    own = folder(files=moved)
    for path, place in zip(patch_files, moved, strict=True):
        place.rename(path)
    assert folder() == own
    others = {folder(SETTINGS | {"seed": 2}), folder(files=patch_files[::-1]), folder(code="n3w")}
    patch_files[2].write_text("other patches")
    assert len(others | {folder(), own}) == 5


def test_a_fresh_start_names_the_settings_that_differ(tmp_path, patch_files):
    other = unfinished(tmp_path, patch_files).name
    changed = SETTINGS | {"train": {"learning_rate": 0.0002, "adam_betas": (0.5, 0.999)}}
    expected = f"train.learning_rate was 0.0004, now 0.0002 (compared with the training in {other})"
    assert reason(tmp_path, patch_files, changed) == expected
    changed = SETTINGS | {"method": {"losses": {"cycle": 5}}}
    assert reason(tmp_path, patch_files, changed).startswith("method.losses.cycle was 10, now 5 (")
    assert reason(tmp_path, patch_files, SETTINGS | {"new": None}).startswith("new was not there, now None (")


def test_a_fresh_start_names_the_patches_that_differ(tmp_path, patch_files):
    first, *rest = patch_files
    unfinished(tmp_path, patch_files)
    assert reason(tmp_path, rest).startswith("the patches of clinical/train1.npy are gone (")
    assert reason(tmp_path, patch_files[::-1]).startswith("the patches are in another order (")
    more = tmp_path / "patches" / "clinical" / "train3.npy"
    more.write_text("more")
    assert reason(tmp_path, [*patch_files, more]).startswith("the patches of clinical/train3.npy are new (")
    renamed = [path.rename(path.with_name(f"renamed_{path.name}")) for path in rest]
    first.write_text("other patches")
    assert reason(tmp_path, [first, *renamed]).startswith("the patches of clinical/train1.npy changed (")


def test_a_fresh_start_names_the_code_and_counts_what_it_does_not_name(tmp_path, patch_files):
    unfinished(tmp_path, patch_files)
    assert reason(tmp_path, patch_files, code="n3w").startswith("the training code changed (")
    changed = {"train": {"learning_rate": 1, "adam_betas": (0, 0)}, "method": {"losses": {"cycle": 1}}, "seed": 2}
    assert reason(tmp_path, patch_files, changed, code="n3w").startswith(
        "train.learning_rate was 0.0004, now 1, train.adam_betas was [0.5, 0.999], now [0, 0], "
        "method.losses.cycle was 10, now 1, and 2 more ("
    )


def test_a_fresh_start_is_compared_with_the_newest_training(tmp_path, patch_files):
    for seed, age in ((2, 100), (3, 0), (4, 200)):
        folder = unfinished(tmp_path, patch_files, SETTINGS | {"seed": seed})
        then = time.time() - age
        os.utime(folder / "step-000000001.pt", (then, then))
    assert reason(tmp_path, patch_files).startswith("seed was 3, now 1 (")


def test_nothing_is_explained_where_a_training_goes_on_or_is_the_first(tmp_path, patch_files):
    assert reason(tmp_path, patch_files) is None
    assert reason(tmp_path, patch_files, SETTINGS | {"seed": 2}) is None, "the other one has no state"
    unfinished(tmp_path, patch_files)
    unfinished(tmp_path, patch_files, SETTINGS | {"seed": 2})
    assert reason(tmp_path, patch_files) is None


@pytest.mark.parametrize("content", [None, "", "{}", '{"settings": 1, "inputs": [], "code": ""}'])
def test_a_training_that_does_not_say_what_made_it_is_named_all_the_same(content, tmp_path, patch_files):
    other = unfinished(tmp_path, patch_files)
    (other / "settings.json").unlink() if content is None else (other / "settings.json").write_text(content)
    expected = f"the training in {other.name} does not say how it was made"
    assert reason(tmp_path, patch_files, SETTINGS | {"seed": 2}) == expected


@pytest.mark.parametrize("network", FAMILIES)
def test_a_model_file_alone_gives_back_g1_and_its_facts(network, tmp_path):
    path, facts, g1 = tmp_path / "generator.pt", FACTS | {"network": network}, build_g1(network, 8)
    save_generator(path, g1, facts)
    loaded, found = load_generator(path)
    assert found == facts and not loaded.training
    assert g1.state_dict().keys() == loaded.state_dict().keys()
    assert all(torch.equal(g1.state_dict()[name], weight) for name, weight in loaded.state_dict().items())
    assert names(tmp_path) == ["generator.pt"]


def test_a_model_file_describes_itself_to_other_programs(model):
    saved = torch.load(model, weights_only=True)
    g1 = build_g1("compact", 8)
    assert (saved["format"], saved["version"], saved["facts"]) == ("microsr generator", 2, FACTS)
    assert saved["architecture"] == {
        "network": "compact", "class": type(g1).__name__,
        "parameters": sum(w.numel() for w in saved["weights"].values()), "halo": g1.halo, "noise_scales": [2, 4, 8],
        "scale": 8,
    }  # fmt: skip


def test_what_is_no_file_of_ours_is_refused(tmp_path, model, write_dicom):
    refused(tmp_path / "absent.pt", "does not exist; train a model first")
    refused(tmp_path, "is a folder; give the generator.pt")
    other = tmp_path / "other.pt"
    other.write_bytes(b"")
    refused(other, "is empty; train it again")
    other.write_text("case\tsplit\n" * 100)
    refused(other, "is no microsr model; give the generator.pt")
    (dicom,) = write_dicom(tmp_path / "dicom", np.zeros((1, 8, 8), np.int16), [(0, 0, 0)])
    refused(dicom, "is no microsr model; give the generator.pt")
    for content in ({"weights": {}}, {"format": "another", "version": 2}, [1, 2], torch.zeros(3)):
        torch.save(content, other)
        refused(other, "is no microsr model; give the generator.pt")
    np.savez(other.with_suffix(".npz"), a=np.zeros(3))
    refused(other.with_suffix(".npz"), "is damaged or no model file .*; copy it again, or train it again")


def test_the_state_of_an_unfinished_training_is_no_model(tmp_path):
    save_state(tmp_path, 1, state_of(1))
    refused(tmp_path / "step-000000001.pt", "is the state of an unfinished training; finish it")


class Payload:
    """A pickle of it makes a file when it is loaded."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


def test_code_in_a_file_is_refused_without_running_it(tmp_path):
    marker, path = tmp_path / "ran", tmp_path / "step-000000001.pt"
    path.write_bytes(pickle.dumps(Payload(marker)))
    refused(path, "is no microsr model")
    torch.save({"format": "microsr generator", "version": 2, "facts": Payload(marker)}, path)
    refused(path, "holds more than weights and plain values, perhaps code; it was not run")
    assert load_state(tmp_path, "cpu") is None
    torch.save({"old": Payload(marker)}, path, _use_new_zipfile_serialization=False)
    refused(path, "is no microsr model")
    assert not marker.exists()
    torch.load(path, weights_only=False)
    assert marker.exists(), "the code is live"


@pytest.mark.parametrize(
    ("version", "cure"),
    [(3, "update microsr"), (1, "train it again"), (None, "train it again"), ("3", "train it again")],
)
def test_another_format_version_is_refused(version, cure, model):
    change(model, version=version)
    refused(model, f"has format version {version}, this program reads 2; {cure}")


@pytest.mark.parametrize("key", FACTS)
def test_a_model_file_without_one_of_its_facts_is_refused(key, model):
    facts = {name: fact for name, fact in FACTS.items() if name != key}
    change(model, facts=facts)
    refused(model, f"facts.{key}: is missing; train it again")
    with pytest.raises(ValidationError):
        save_generator(model, build_g1("compact", 8), facts)


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("network", 3),
        ("window_hu", [-1000.0]),
        ("window_hu", [-1000.0, float("nan")]),
        ("window_hu", "-1000 400"),
        ("seed", 1.5),
        ("seed", None),
        ("steps", "30"),
        ("clinical_spacing_mm", "0.6"),
        ("micro_spacing_mm", float("inf")),
        ("provenance", "by hand"),
    ],
)
def test_a_fact_of_the_wrong_type_is_refused(key, wrong, model):
    change(model, facts=FACTS | {key: wrong})
    refused(model, rf"facts.{key}.*; train it again")


@pytest.mark.parametrize("part", ["facts", "architecture", "weights"])
def test_a_model_file_without_one_of_its_parts_is_refused(part, model):
    change(model, **{part: "none"})
    refused(model, rf"{part}.*; train it again")
    saved = torch.load(model, weights_only=True)
    del saved[part]
    torch.save(saved, model)
    refused(model, rf"{part}: is missing; train it again")


def test_an_unknown_network_is_refused(model):
    change(model, facts=FACTS | {"network": "transformer"})
    refused(model, f"has a 'transformer' network, this program knows {', '.join(FAMILIES)}; update microsr")


@pytest.mark.parametrize(
    ("key", "theirs"),
    [
        ("network", "resnet"),
        ("class", "OtherG1"),
        ("parameters", 7),
        ("halo", 13),
        ("noise_scales", [2, 4]),
    ],
)
def test_another_architecture_than_this_programs_is_refused_with_both_named(key, theirs, model):
    architecture = torch.load(model, weights_only=True)["architecture"]
    own = architecture[key]
    change(model, architecture=architecture | {key: theirs})
    with pytest.raises(UserError) as error:
        load_generator(model)
    assert f"whose {key} is {theirs}, in this program it is {own}; use the microsr that trained it" in str(error.value)


@pytest.mark.parametrize("scale", [3, None, "8"])
def test_a_scale_that_no_network_has_is_refused(scale, model):
    architecture = torch.load(model, weights_only=True)["architecture"]
    change(model, architecture=architecture | {"scale": scale})
    refused(model, f"has the scale {scale}, this program knows 2, 4, 8, 16; update microsr, or train it again")


def test_weights_of_another_scale_than_the_file_says_are_refused(model):
    architecture = torch.load(model, weights_only=True)["architecture"]
    change(model, architecture=architecture | {"scale": 4})
    refused(model, "was trained with a compact G1 whose parameters is")


def test_weights_that_do_not_fit_are_refused(model):
    weights = torch.load(model, weights_only=True)["weights"]
    first = next(iter(weights))
    change(model, weights=weights | {first: weights[first][:2]})
    refused(model, rf"weights that do not fit its compact G1 \(size mismatch for {first}: .*\); train it again")
    change(model, weights=weights | {"more": torch.zeros(1)})
    refused(model, r'weights that do not fit its compact G1 \(Unexpected key.*"more".*\); train it again')
    change(model, weights={name: weight for name, weight in weights.items() if name != first})
    refused(model, rf'weights that do not fit its compact G1 \(Missing key.*"{first}".*\); train it again')


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused(value, model):
    weights = torch.load(model, weights_only=True)["weights"]
    last = list(weights)[-1]
    weights[last][0] = value
    change(model, weights=weights)
    refused(model, rf"weights that are not finite \({last}\); train it again")


def test_a_model_file_cut_off_at_any_length_is_refused(model):
    whole = model.read_bytes()
    for length in [*range(4, len(whole), 5003), len(whole) - 1]:
        model.write_bytes(whole[:length])
        refused(model, r"is damaged or no model file \(its end is missing\); copy it again")


def test_a_model_file_with_a_flipped_byte_is_refused_unless_all_it_says_is_the_same(model):
    whole = model.read_bytes()
    weights = torch.load(model, weights_only=True)["weights"]
    noticed = 0
    for place in range(0, len(whole), 1009):
        model.write_bytes(whole[:place] + bytes([whole[place] ^ 0x04]) + whole[place + 1 :])
        try:
            g1, facts = load_generator(model)
            assert facts == FACTS and all(torch.equal(weights[name], w) for name, w in g1.state_dict().items()), place
        except UserError as error:
            assert "is damaged or no model file (" in str(error), place
            noticed += 1
    assert noticed > 0.9 * len(whole) / 1009, "nearly all of the file is weights"
