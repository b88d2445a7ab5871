"""A search tries as many settings of each trained method, drawn so that no trial depends on another one."""

import pytest

from microsr.config import load, trials_of, with_trials
from microsr.core.errors import UserError

SPACES = {
    "proposed": {"losses.downsample": [1, 200], "train.learning_rate": [1e-4, 8e-4]},
    "cyclegan": {"losses.cycle": [1, 20]},
}


def searched(trials=4, spaces=None, **settings):
    given = {"experiment": "x", "search": {"trials": trials, "spaces": SPACES if spaces is None else spaces}}
    return load(given | settings)


def test_every_trained_method_gets_as_many_trials_and_the_first_is_as_it_stands():
    before, after = searched(), with_trials(searched())
    assert list(after.methods) == [
        *(f"proposed-{n}" for n in range(1, 5)), "bicubic", *(f"cyclegan-{n}" for n in range(1, 5)),
    ]  # fmt: skip
    assert after.methods["proposed-1"] == before.methods["proposed"]
    assert after.methods["bicubic"] == before.methods["bicubic"]
    for name, changes in (pair for trials in trials_of(before).values() for pair in list(trials.items())[1:]):
        method = after.methods[name]
        for key, value in changes.items():
            section, _, inner = key.partition(".")
            assert (
                getattr(method, section)[inner] == value
                if section == "train"
                else getattr(method.losses, inner) == value
            )
    assert (
        after.training_of("proposed-2").learning_rate
        == trials_of(before)["proposed"]["proposed-2"]["train.learning_rate"]
    )
    assert after.methods["proposed-2"].mix_fraction == before.methods["proposed"].mix_fraction


def test_a_trial_is_drawn_within_its_space_and_depends_on_no_other_one():
    many, few = trials_of(searched(60)), trials_of(searched(3))
    assert {name: many["proposed"][name] for name in few["proposed"]} == few["proposed"]
    values = [trial["losses.downsample"] for trial in list(many["proposed"].values())[1:]]
    assert all(1 <= value <= 200 for value in values) and len(set(values)) > 40
    assert 0.3 < sum(value < 200**0.5 for value in values) / len(values) < 0.7, "evenly in the logarithm"
    alone = trials_of(searched(3, {"cyclegan": SPACES["cyclegan"], "proposed": SPACES["proposed"]}))
    assert alone["cyclegan"] == few["cyclegan"]
    other = load({"experiment": "x", "search": {"trials": 3, "seed": 2, "spaces": SPACES}})
    assert trials_of(other)["cyclegan"]["cyclegan-2"] != few["cyclegan"]["cyclegan-2"]


def test_without_trials_an_experiment_stays_as_it_is():
    assert with_trials(searched(0)) == searched(0) and trials_of(searched(0)) == {}


@pytest.mark.parametrize(
    ("spaces", "message"),
    [
        ({"proposed": {}}, r"search.spaces: cyclegan: every trained method must have a space"),
        (SPACES | {"bicubic": {}}, r"search.spaces: bicubic: every trained method .*\(trained: cyclegan, proposed\)"),
        (
            SPACES | {"proposed": {"downsample": [1, 2]}},
            r"search.spaces.proposed.downsample: the method has no such key",
        ),
        (
            SPACES | {"proposed": {"losses.upsmple": [1, 2]}},
            r"search.spaces.proposed.losses.upsmple: the method has no",
        ),
        (SPACES | {"proposed": {"loss.upsample": [1, 2]}}, r"search.spaces.proposed.loss.upsample: the method has no"),
    ],
)
def test_a_search_that_is_not_fair_or_has_no_such_key_is_refused(spaces, message):
    with pytest.raises(UserError, match=message) as error:
        with_trials(searched(3, spaces))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("space", [[2, 1], [0, 1], [1, 1]])
def test_a_space_rises_from_above_0(space):
    with pytest.raises(UserError, match=r"search: spaces.proposed.losses.cycle must rise from a value above 0"):
        searched(3, {"proposed": {"losses.cycle": space}})
