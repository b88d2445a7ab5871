"""The JSON schema for editors: current, named by every experiment, and of one mind with the models about what a key may
be.
"""

import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft7Validator
from snakemake.utils import update_config

from microsr.config import Experiment, Train, load
from microsr.config.schema import FILE, make_schema, schema_text
from microsr.core.errors import UserError

ROOT = Path(__file__).parents[3]
EXPERIMENTS = [ROOT / "config.yaml", *sorted((ROOT / "experiments").glob("*.yaml"))]
SCHEMA = json.loads(FILE.read_text(encoding="utf-8"))


def mistakes(settings: object) -> list[str]:
    """What an editor would mark: the path of each mistake, with what is wrong."""
    return [f"{error.json_path}: {error.message}" for error in Draft7Validator(SCHEMA).iter_errors(settings)]


def refused_by_load(overlay: dict) -> bool:
    """Whether the workflow refuses it, laid over config.yaml."""
    whole = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    update_config(whole, overlay)
    try:
        load(whole)
    except UserError:
        return True
    return False


def test_the_committed_schema_is_current():
    assert FILE.read_text(encoding="utf-8") == schema_text(), "run `make schema`"


def test_the_schema_is_one_and_in_the_draft_that_editors_read():
    Draft7Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == Draft7Validator.META_SCHEMA["$schema"]
    text = FILE.read_text(encoding="utf-8")
    assert "prefixItems" not in text and "$defs" not in text  # of later drafts: they would be passed over


def test_the_schema_is_in_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert FILE.name in project["tool"]["setuptools"]["package-data"]["microsr.config"]
    assert FILE == ROOT / "src/microsr/config/schema.json"


@pytest.mark.parametrize("file", EXPERIMENTS, ids=lambda file: file.stem)
def test_every_experiment_names_the_schema_and_keeps_to_it(file):
    text = file.read_text(encoding="utf-8")
    named = re.match(r"# yaml-language-server: \$schema=(\S+)\n", text)
    assert (file.parent / named[1]).resolve() == FILE.resolve()
    assert mistakes(yaml.safe_load(text)) == []


def test_all_defaults_keep_to_the_schema():
    assert mistakes(Experiment(experiment="x").model_dump(mode="json")) == []


@pytest.mark.parametrize(
    "overlay",
    [
        {},
        {"methods": {"cyclegan": None}},
        {"methods": {"proposed": {"losses": {"cycle": 50}, "train": {"network": "resnet", "adam_betas": [0.5, 0.9]}}}},
        {"note": None, "volumes": {"micro": {"calibration": {"air_grey": None}}}},
        {"superresolve": {"slices": "3:8"}, "compute": {"tile": 64}, "figures": {"insets": [{"row": 1, "column": 2}]}},
        {"superresolve": {"slices": [3, 5]}, "compute": {"tile": "auto"}, "train": {"spectral_norm": None}},
    ],
)  # fmt: skip
def test_an_overlay_names_what_it_changes_and_no_more(overlay):
    assert mistakes(overlay) == [] and not refused_by_load(overlay)


@pytest.mark.parametrize(
    ("overlay", "place"),
    [
        ({"tran": {}}, "$"),
        ({"train": {"epoch": 5}}, "$.train"),
        ({"train": {"epochs": "many"}}, "$.train.epochs"),
        ({"train": {"epochs": 0}}, "$.train.epochs"),
        ({"train": {"network": "unet"}}, "$.train.network"),
        ({"train": {"augment": "perhaps"}}, "$.train.augment"),
        ({"train": {"learning_rate": 0}}, "$.train.learning_rate"),
        ({"train": {"ema_decay": 1}}, "$.train.ema_decay"),
        ({"train": {"adam_betas": [0.5]}}, "$.train.adam_betas"),
        ({"train": {"adam_betas": [0.5, 2]}}, "$.train.adam_betas[1]"),
        ({"train": None}, "$.train"),
        ({"experiment": "a b"}, "$.experiment"),
        ({"methods": {"a b": {}}}, "$.methods"),
        ({"methods": {"mine": {"loss": {}}}}, "$.methods.mine"),
        ({"methods": {"mine": {"losses": {"cycle": -1}}}}, "$.methods.mine.losses.cycle"),
        ({"methods": {"mine": {"train": {"epoch": 1}}}}, "$.methods.mine.train"),
        ({"methods": {"mine": {"train": {"repeats": 3}}}}, "$.methods.mine.train"),
        ({"methods": {"mine": {"train": {"epochs": 0}}}}, "$.methods.mine.train.epochs"),
        ({"methods": ["proposed"]}, "$.methods"),
        ({"protocols": []}, "$.protocols"),
        ({"superresolve": {"slices": "first"}}, "$.superresolve.slices"),
        ({"superresolve": {"slices": [-1]}}, "$.superresolve.slices"),
        ({"superresolve": {"formats": ["jpeg"]}}, "$.superresolve.formats[0]"),
        ({"volumes": {"micro": {"calibration": {"air": 1}}}}, "$.volumes.micro.calibration"),
        ({"figures": {"insets": [{"row": 1}]}}, "$.figures.insets[0]"),
        ({"window_hu": [-1000, 0, 400]}, "$.window_hu"),
        ({"evaluate": {"kernel_pair": ["a", "b", "c"]}}, "$.evaluate.kernel_pair"),
    ],
)  # fmt: skip
def test_a_mistake_is_marked_where_it_is_and_is_one(overlay, place):
    found = mistakes(overlay)
    assert len(found) == 1 and found[0].startswith(f"{place}: ")
    assert refused_by_load(overlay)


@pytest.mark.parametrize("key", Train.model_fields)
def test_a_method_may_change_of_its_training_what_the_models_let_it(key):
    value = Train().model_dump(mode="json")[key]
    overlay = {"methods": {"mine": {"train": {key: value}}}}
    assert bool(mistakes(overlay)) == refused_by_load(overlay) == (key in ("repeats", "candidates"))


def test_an_editor_can_show_what_every_key_means():
    schema = make_schema()
    sections = {"": schema, **schema["definitions"]}
    for name, section in sections.items():
        assert section["description"]
        for key, setting in section["properties"].items():
            # draft 7 passes over what stands beside a reference
            assert list(setting) == ["$ref"] or setting["description"], f"{name}.{key}"
