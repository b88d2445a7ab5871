"""Kinds of methods: what each may be given, and that a kind without settings of its own needs none to be written."""

import argparse
import shlex
from typing import get_args

import pytest

from microsr import config
from microsr.config import arguments, methods
from microsr.core.errors import UserError
from microsr.core.registry.methods import METHODS, Entry
from microsr.core.registry.upsamplers import UPSAMPLERS


@pytest.fixture
def plain(monkeypatch):
    """A kind that is registered without settings of its own."""
    entry = Entry("microsr.training.methods.plain:Plain", help="The plainest one.")
    made = methods._settings_of("plain", entry)
    monkeypatch.setitem(METHODS, "plain", entry)
    monkeypatch.setitem(config.KINDS, "plain", made)
    return made


def test_every_kind_has_the_settings_that_name_it():
    assert list(config.KINDS) == [*METHODS, *UPSAMPLERS, "mean"] and config.KIND in METHODS
    for kind, model in config.KINDS.items():
        assert kind in get_args(model.model_fields["kind"].annotation)
        assert issubclass(model, config.TrainedMethod) == (kind in METHODS)


def test_a_kind_without_settings_of_its_own_has_changes_of_the_training_alone(plain):
    assert list(plain.model_fields) == ["kind", "train"]
    assert plain.model_fields["kind"].description == "The plainest one."
    made = plain(train={"epochs": 3})
    assert (made.kind, made.data) == ("plain", "unpaired")
    assert not made.uses_noise and not made.needs_scanner(config.Train())
    assert made.needs_scanner(config.Train(start_steps=1))
    for wrong in ({"kind": "cyclegan"}, {"mix_fraction": 0.1}, {"train": {"repeats": 3}}, {"train": {"epoch": 3}}):
        with pytest.raises(ValueError, match="1 validation error"):
            plain(**wrong)


def test_a_command_refuses_the_settings_of_another_kind(plain):
    parser = argparse.ArgumentParser()
    arguments.add_method_flags(parser)

    def given(text):
        return arguments.method_from_flags(parser.parse_args(shlex.split(text)))

    assert given("--kind plain") == plain()
    with pytest.raises(UserError, match=r"^command line: losses\.cycle: unknown key for kind plain; allowed .*: kind$"):
        given("--kind plain --losses.cycle 3")


def test_the_methods_of_an_experiment_that_names_none_are_the_papers():
    kinds = {name: method.kind for name, method in methods.default_methods().items()}
    assert kinds == {"proposed": "cyclegan", "bicubic": "bicubic", "cyclegan": "cyclegan"}


@pytest.mark.parametrize(("of", "there"), [("missing", "sampler"), ("plain", "sampler")])
def test_a_mean_is_of_a_method_that_samples(of, there):
    given = {"sampler": {"kind": "posterior"}, "plain": {"kind": "bicubic"}, "mean": {"kind": "mean", "of": of}}
    with pytest.raises(UserError, match=rf"methods\.mean\.of is {of}, must be .* kind posterior \({there}\)"):
        config.load({"experiment": "x", "methods": given})
    made = config.load({"experiment": "x", "methods": given | {"mean": {"kind": "mean", "of": "sampler"}}})
    assert made.means == {"mean": "sampler"} and list(made.trained_methods) == ["sampler"]
