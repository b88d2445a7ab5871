"""Of the models kept of a training the validation cases choose one: it is copied, and what each gave is told."""

import argparse
from pathlib import Path

import pandas as pd
import pytest

from microsr import config
from microsr.core.errors import UserError
from microsr.evaluation import tables
from microsr.evaluation.selection import choose_model
from microsr.evaluation.selection.tabulate_choices import collect_choices

BY = ["truth.psnr", "no_reference.spectrum_distance"]
GIVES = {"generator.1.pt": (20, 3.0), "generator.2.pt": (30, 1.0), "generator.3.pt": (25, 2.0)}
"""PSNR and spectrum distance of each model."""


@pytest.fixture
def choosing(tmp_path, monkeypatch):
    """Chooses among models whose metrics are given, on two cases; the table, and the file that is chosen."""
    monkeypatch.setattr(choose_model, "Generator", lambda model, *_: model)
    monkeypatch.setattr(
        choose_model, "superresolve", lambda source, image, model, *_, **__: image.write_text(model.name)
    )

    def go(gives):
        def evaluate(names, image, clinical, micro, output, *_):
            psnr, spectrum = gives[image.read_text()]
            found = [("truth", "psnr", psnr, "dB"), ("no_reference", "spectrum_distance", spectrum, "log10 power")]
            tables.write_table(output, names, found)

        monkeypatch.setattr(choose_model, "evaluate", evaluate)
        models = [tmp_path / name for name in gives]
        for model in models:
            model.write_bytes(model.name.encode())
        clinical = tmp_path / "clinical.nii"
        clinical.write_text("a scan")
        cases = [choose_model.ValidationCase(name, clinical, [clinical]) for name in ("validation1", "validation2")]
        choose_model.choose(
            ("proposed", "pooled", "7"), models, cases, tmp_path / "generator.pt", tmp_path / "choice.csv",
            config.Evaluate(choose_by=BY), config.Scanner(), config.Superresolve(), config.Compute(),
        )  # fmt: skip
        return pd.read_csv(tmp_path / "choice.csv", keep_default_na=False), (tmp_path / "generator.pt").read_bytes()

    return go


def test_the_model_with_the_best_mean_rank_is_copied_and_all_are_told(choosing, tmp_path):
    table, chosen = choosing(GIVES)
    assert chosen == b"generator.2.pt"
    assert list(table.columns) == ["method", "training_set", "seed", "candidate", "chosen", *BY, "mean_rank"]
    assert list(table["candidate"]) == ["generator.2.pt", "generator.3.pt", "generator.1.pt"]
    assert list(table["chosen"]) == ["yes", "", ""] and list(table["mean_rank"]) == [1, 2, 3]
    assert set(table["seed"]) == {7} and list(table["truth.psnr"]) == [30, 25, 20]
    assert {"generator.run.json", "choice.run.json"} <= {path.name for path in tmp_path.iterdir()}
    assert not list(tmp_path.glob(".choose.*"))


def test_of_equals_the_one_that_was_trained_longest_is_chosen(choosing):
    assert choosing(dict.fromkeys(GIVES, (20, 3.0)))[1] == b"generator.3.pt"


def test_choices_of_all_trainings_stand_in_one_table(choosing, tmp_path):
    choosing(GIVES)
    (tmp_path / "choice.csv").rename(tmp_path / "one.csv")
    choosing(dict.fromkeys(GIVES, (20, 3.0)))
    collect_choices([tmp_path / "one.csv", tmp_path / "choice.csv"], tmp_path / "all.csv")
    table = pd.read_csv(tmp_path / "all.csv", keep_default_na=False)
    assert list(table.loc[table["chosen"] == "yes", "candidate"]) == ["generator.2.pt", "generator.3.pt"]
    with pytest.raises(UserError, match=r"choice\.csv has no column"):
        (tmp_path / "choice.csv").write_text("a,b\n1,2\n")
        collect_choices([tmp_path / "choice.csv"], tmp_path / "all.csv")


def test_a_validation_case_is_said_in_words():
    case = choose_model.case_of(["name=v", "clinical=c", "micro=m1", "micro=m2", "truth=t", "labels=l", "airways=a"])
    assert (case.name, case.clinical, case.micro) == ("v", Path("c"), [Path("m1"), Path("m2")])
    assert case.paths == [Path(name) for name in ("c", "m1", "m2", "t", "l", "a")]
    assert choose_model.case_of(["name=v", "clinical=c", "micro=m"]).reference is None


@pytest.mark.parametrize("words", [["name=v", "clinical=c"], ["name=v", "clinical=c", "micro=m", "lables=l"], ["v"]])
def test_words_that_make_no_case_are_refused(words):
    with pytest.raises(UserError, match=r"--case .*: give name=, clinical= and micro="):
        choose_model.case_of(words)


def test_the_command_has_the_settings_of_its_sections():
    parser = argparse.ArgumentParser()
    choose_model.arguments(parser)
    words = (
        "--method m --training_set s --seed 1 --candidates a.pt b.pt --case name=v clinical=c micro=m --by truth.psnr"
    )
    given = parser.parse_args(
        [*words.split(), "--output", "o.pt", "--table", "t.csv", "--noise_hu", "12", "--slices", "2:6"]
    )
    assert config.from_flags(given, config.Scanner).noise_hu == 12 and given.case == [
        ["name=v", "clinical=c", "micro=m"]
    ]
    assert config.from_flags(given, config.Superresolve).slices == "2:6"
