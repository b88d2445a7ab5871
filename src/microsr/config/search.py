"""Section `search`: settings of the trained methods that are tried on the validation cases, as many of each method."""

from __future__ import annotations

import math
import zlib
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, model_validator

from microsr.config.section import Name, Section
from microsr.core.errors import UserError
from microsr.core.streams import Stream, numpy_stream

if TYPE_CHECKING:
    from microsr.config.experiment import Experiment

DIGITS = 2
"""Of a value that is drawn, so that a table shows it as it was used."""


class Search(Section):
    """Trials of settings: each is a method of its own, named <method>-<number>."""

    trials: Annotated[int, Field(ge=0)] = 0
    """Trials of each trained method, the first with its settings unchanged; 0: no search."""
    seed: Annotated[int, Field(ge=0)] = 1
    """Seed of the random settings."""
    spaces: dict[Name, dict[str, tuple[float, float]]] = {}
    """For each trained method the keys that are drawn, and their ranges (drawn evenly in the logarithm), as
    {proposed: {losses.downsample: [1, 200], train.learning_rate: [1.0e-4, 8.0e-4]}}.
    """

    @model_validator(mode="after")
    def _rising(self) -> Search:
        for method, space in self.spaces.items():
            for key, (low, high) in space.items():
                if not 0 < low < high:
                    raise ValueError(f"spaces.{method}.{key} must rise from a value above 0, not {low:g} to {high:g}")
        return self


def trials_of(experiment: Experiment) -> dict[str, dict[str, dict[str, float]]]:
    """What each trial changes, {method: {name of the trial: {key: value}}}; a trial depends on no other one."""
    search = experiment.search
    found: dict[str, dict[str, dict[str, float]]] = {}
    for method, space in search.spaces.items() if search.trials else ():
        trials: dict[str, dict[str, float]] = {f"{method}-1": {}}
        for number in range(2, search.trials + 1):
            random = numpy_stream(Stream.SEARCH, search.seed, zlib.crc32(f"{method}-{number}".encode()))
            drawn = random.random(len(space))
            trials[f"{method}-{number}"] = {
                key: _round(math.exp(math.log(low) + share * math.log(high / low)))
                for (key, (low, high)), share in zip(space.items(), drawn, strict=True)
            }
        found[method] = trials
    return found


def with_trials(experiment: Experiment) -> Experiment:
    """The experiment with its trials in place of its trained methods, or as it is where nothing is searched.

    Raises
    ------
    UserError
        A trained method has no space, so that it would get fewer trials than the others; a space is of no trained
        method; or a key is none of the method's.
    """
    if not experiment.search.trials:
        return experiment
    trained = set(experiment.trained_methods)
    if wrong := sorted(trained ^ set(experiment.search.spaces)):
        raise UserError(
            f"search.spaces: {', '.join(wrong)}: every trained method must have a space, and nothing else, so that all "
            f"get as many trials (trained: {', '.join(sorted(trained))})"
        )
    trials = trials_of(experiment)
    dumped = experiment.model_dump(mode="json")
    methods: dict[str, Any] = {}
    for name, method in dumped["methods"].items():
        if name not in trained and name not in experiment.means:  # a mean is of one model, not of each trial's
            methods[name] = method
        for trial, changes in trials.get(name, {}).items():
            methods[trial] = _change(name, method, changes)
    return type(experiment).model_validate(dumped | {"methods": methods})


def _change(name: str, method: dict[str, Any], changes: dict[str, float]) -> dict[str, Any]:
    """A method's settings, as plain values, with some of them changed."""
    for key, value in changes.items():
        outer, _, inner = key.rpartition(".")
        level = method if not outer else method.get(outer)
        if not isinstance(level, dict) or (outer != "train" and inner not in level):
            raise UserError(f"search.spaces.{name}.{key}: the method has no such key; write it as losses.downsample")
        method = method | ({outer: level | {inner: value}} if outer else {inner: value})
    return method


def _round(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
