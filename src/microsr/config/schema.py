"""The JSON schema of config.yaml and of what is laid over it: with it an editor completes keys, shows meanings and
marks mistakes.

`make schema` writes schema.json beside this file, from the models; the first line of each experiment names it. What
contradicts another setting no schema can tell: `load` does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue

from microsr.config.experiment import Experiment
from microsr.config.methods import KIND, KINDS, Method, TrainedMethod
from microsr.core.files import replacing

FILE = Path(__file__).with_name("schema.json")


class _ForEditors(GenerateJsonSchema):
    """JSON schemas in draft 7: what editors read, by yaml-language-server."""

    schema_dialect = "http://json-schema.org/draft-07/schema#"

    def field_title_should_be_set(self, schema: Any) -> bool:
        """A title would say the key again."""
        return False

    def tuple_schema(self, schema: Any) -> JsonSchemaValue:
        """Draft 7 has no prefixItems: they are its items."""
        made = super().tuple_schema(schema)
        return made | {"items": made.pop("prefixItems")}

    def dict_schema(self, schema: Any) -> JsonSchemaValue:
        """A name that does not have the pattern is refused; an overlay may name none."""
        made = super().dict_schema(schema)
        made.pop("minProperties", None)
        return made | ({"additionalProperties": False} if "patternProperties" in made else {})


def make_schema() -> dict[str, Any]:
    """The schema of an overlay: no key must be there, and a method may be null. That config.yaml has all of them `load`
    tells.
    """
    made = Experiment.model_json_schema(ref_template="#/definitions/{model}", schema_generator=_ForEditors)
    made["definitions"] = definitions = made.pop("$defs")
    del made["required"]
    changes = {  # what is not changed is as in the section `train`: no defaults
        key: {word: said for word, said in setting.items() if word != "default"}
        for key, setting in definitions["Train"]["properties"].items()
        if key not in ("repeats", "candidates")
    }
    for model in dict.fromkeys(KINDS.values()):
        if issubclass(model, TrainedMethod):
            train = definitions[model.__name__]["properties"]["train"]
            train |= {"properties": changes, "additionalProperties": False}
    definitions["Method"] = _any_method()
    (names,) = made["properties"]["methods"]["patternProperties"]
    made["properties"]["methods"]["patternProperties"][names] = {"$ref": "#/definitions/Method"}
    return {"$schema": _ForEditors.schema_dialect, **made}


def _any_method() -> dict[str, Any]:
    """A method: its kind, and what a method of that kind may have. As a list of alternatives, a mistake in one would be
    told as a mistake of all.
    """
    alternatives = []
    for kind, model in KINDS.items():
        named = {"type": "object", "properties": {"kind": {"const": kind}}}
        named |= {} if kind == KIND else {"required": ["kind"]}
        alternatives.append({"if": named, "then": {"$ref": f"#/definitions/{model.__name__}"}})
    kind = {"enum": list(KINDS), "default": KIND, "description": Method.model_fields["kind"].description}
    said = " ".join((Method.__doc__ or "").split())
    return {"type": ["object", "null"], "description": said, "properties": {"kind": kind}, "allOf": alternatives}


def schema_text() -> str:
    """The schema as it stands in FILE."""
    return json.dumps(make_schema(), indent=2) + "\n"


if __name__ == "__main__":
    with replacing(FILE) as temporary:
        temporary.write_text(schema_text(), encoding="utf-8")
