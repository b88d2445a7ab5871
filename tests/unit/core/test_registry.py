"""The registries: what they name is there, and offers what its kind must; no module is looked for by a name put
together.
"""

import argparse
import ast
import inspect
import types
from importlib import import_module

import numpy as np
import pandas as pd
import pytest

from microsr import config
from microsr.config.sheet import Case
from microsr.core.code_version import SOURCE
from microsr.core.registry import load_thing
from microsr.core.registry.families import FAMILIES
from microsr.core.registry.figures import FIGURES
from microsr.core.registry.formats import FORMATS
from microsr.core.registry.losses import LOSSES
from microsr.core.registry.methods import FILES, METHODS
from microsr.core.registry.protocols import ASKED_FOR, PROTOCOLS
from microsr.core.registry.read_only_formats import READ_ONLY
from microsr.core.registry.upsamplers import UPSAMPLERS
from microsr.evaluation.catalogue import METRICS, find_protocol
from microsr.evaluation.protocols.protocol import Protocol
from microsr.figures.figure import Figure
from microsr.formats.further import Format, further_format
from microsr.formats.readers import read_only_format
from microsr.formats.writers import ENDINGS
from microsr.inference.upsamplers import Upsampler, interpolation
from microsr.networks.families import Family, Magnifying, Sampling, build_g1
from microsr.preprocessing.patch_files import SCAN_COLUMNS
from microsr.training.losses import Loss
from microsr.training.methods.method import Data, Setup, TrainableMethod
from microsr.training.train import PATCHES, trainable


def check(thing, protocol):
    """It has the protocol's members, and its methods take what the protocol's take."""
    methods = {name: method for name, method in vars(protocol).items() if name in ("__call__", *public(protocol))}
    assert methods
    for name in inspect.get_annotations(protocol):
        assert hasattr(thing, name), name
    for name, asked in methods.items():
        method = getattr(thing, "forward", thing) if name == "__call__" else getattr(thing, name)
        own = [] if isinstance(asked, staticmethod) else ["self"]
        assert [*own, *inspect.signature(method).parameters] == list(inspect.signature(asked).parameters), name


def public(protocol):
    kinds = (types.FunctionType, staticmethod)
    return [name for name, thing in vars(protocol).items() if isinstance(thing, kinds) and not name.startswith("_")]


def test_each_family_makes_a_g1_that_offers_what_it_must():
    for name, place in FAMILIES.items():
        assert isinstance(load_thing(place), Family)
        check(build_g1(name, 8), Magnifying)
        if load_thing(place).sampler:
            check(build_g1(name, 8, sampler=True), Sampling)
            check(build_g1(name, 8, sampler=True), Magnifying)


def test_each_upsampler_offers_what_it_must():
    for name in UPSAMPLERS:
        check(interpolation(name), Upsampler)


def test_each_loss_offers_what_it_must():
    for key, loss in LOSSES.items():
        check(load_thing(loss.place), Loss)
        field = config.Losses.model_fields[key]
        assert (field.description, field.default) == (loss.help, 0)


def test_each_trainable_method_offers_what_it_must():
    for kind, entry in METHODS.items():
        method = trainable(kind)
        assert list(inspect.signature(method).parameters) == ["setup", "sizes"]
        made = method(Setup(config.Train(network="compact"), config.KINDS[kind](), 1), (8, 64))
        check(made, TrainableMethod)
        assert made.networks["G1"] and kind not in UPSAMPLERS
        assert set(FILES[entry.data]) <= set(PATCHES)


def test_the_data_of_a_training_offer_what_they_must(tmp_path):
    for name, size in (("clinical", 8), ("micro", 64)):
        np.save(tmp_path / f"{name}.npy", np.zeros((4, size, size), np.int16))
    np.save(tmp_path / "scans.npy", np.zeros((8, 8, 8), np.int16))
    table = pd.DataFrame([["a", "micro", 0, 0, 0, 64, "lung", 0.29]] * 8, columns=SCAN_COLUMNS)
    table.to_csv(tmp_path / "scans.csv", index=False)
    files = {name: [tmp_path / f"{name}.npy"] for name in ("clinical", "micro", "scans")}
    files["scan_table"] = [tmp_path / "scans.csv"]
    for kind in METHODS:
        setup = Setup(config.Train(network="compact"), config.KINDS[kind](), 1, scanner=config.Scanner())
        check(trainable(kind).open_data(files, setup), Data)


def test_each_format_offers_what_it_must():
    for ending in FORMATS:
        check(further_format(ending), Format)
        assert ENDINGS[f".{ending}"] == ending
    for ending in READ_ONLY:
        assert list(inspect.signature(read_only_format(ending).read).parameters) == ["path", "scan", "scratch"]


def flags_of(module):
    """The flags that a module adds to its command."""
    parser = argparse.ArgumentParser()
    module.arguments(parser)
    return {action.dest: action for action in parser._actions}


def test_each_protocol_of_evaluation_offers_what_it_must():
    for name, entry in PROTOCOLS.items():
        protocol = import_module(entry.module)
        check(protocol, Protocol)
        flags = flags_of(protocol)
        assert set(entry.inputs) <= set(flags) and ("setting:data_range_hu" in flags) == entry.settings, name
        assert find_protocol(name).reading and any(metric.protocol == name for metric in METRICS)
        assert set(entry.columns) <= set(Case.model_fields) and set(entry.references) <= set(config.REFERENCES)
        assert entry.measures in ("", *entry.scans) and entry.kind in ("", *config.KINDS)


def test_each_figure_offers_what_it_must():
    for name, entry in FIGURES.items():
        figure = import_module(entry.module)
        check(figure, Figure)
        flags = flags_of(figure)
        assert not entry.writes or entry.writes in flags, name
        assert not entry.table or "table" in flags, name
        assert entry.category in ("Data", "Training", "Results")


def test_what_lacks_something_is_found_out():
    """The tests above would be told, whatever is registered."""

    class Half:
        def read(self, path, scan, scratch):
            pass

    class Other(Half):
        def writer(self, path, shape, volume):
            pass

    class Whole(Half):
        def writer(self, path, shape, volume, state):
            pass

    check(Whole(), Format)
    check(lambda images: images.a.mean(), Loss)
    for thing, protocol in (
        (Half(), Format),
        (Other(), Format),
        (lambda: 0, Loss),
        (Whole(), Upsampler),
        (Half(), Figure),
    ):
        with pytest.raises((AssertionError, AttributeError)):
            check(thing, protocol)


def test_the_settings_take_their_words_from_the_registries():
    for name in FAMILIES:
        assert config.Train(network=name).network == name
    for name in (*METHODS, *UPSAMPLERS):
        methods = config.load({"experiment": "x", "methods": {"mine": {"kind": name}}}).methods
        assert methods["mine"].kind == name
    assert set(FORMATS) <= set(config.EXPORTED)
    assert config.Evaluate(further_protocols=list(ASKED_FOR)).further_protocols == list(ASKED_FOR)


def test_a_format_that_is_read_only_is_read_and_not_written(monkeypatch, tmp_path):
    from microsr.config.sheet import Scan
    from microsr.core.errors import UserError
    from microsr.formats import readers, writers

    class Shouted:
        def read(self, path, scan, scratch):
            raise UserError(f"{path.name}: read by its own module")

    monkeypatch.setattr(readers, "further_format", {"shout": Shouted()}.get)
    (tmp_path / "scan.shout").touch()
    with pytest.raises(UserError, match=r"scan\.shout: read by its own module"):
        readers.read_scan(Scan(path=str(tmp_path / "scan.shout")))
    with pytest.raises(UserError, match="is of no known format"):
        writers.kind_of(tmp_path / "scan.shout")


def test_what_is_nowhere_is_no_format():
    assert further_format("shout") is None
    with pytest.raises(KeyError):
        build_g1("transformer", 8)


@pytest.mark.parametrize("file", sorted(SOURCE.rglob("*.py")), ids=lambda file: file.relative_to(SOURCE).as_posix())
def test_no_module_is_found_by_a_name_put_together(file):
    """So a search for a module's name finds who uses it, and code versions too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func):
            assert isinstance(node.args[0], ast.Constant | ast.Name | ast.Attribute | ast.Subscript), ast.unparse(node)
        assert not (isinstance(node, ast.Call) and "find_spec" in ast.unparse(node.func)), ast.unparse(node)
