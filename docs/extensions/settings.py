"""Every setting of an experiment on docs/configuration.md, from the models of `microsr.config` themselves.

What a setting re-runs is taken from tests/workflow/test_settings.py, which tries each of them. The page is put together
while the site is built, so that it cannot fall behind the code.
"""

import importlib.util
import json
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path

import annotated_types
import yaml
from pydantic.fields import FieldInfo
from sphinx.application import Sphinx

from microsr import config

ROOT = Path(__file__).parents[2]
PAGE = "configuration"
UNITS = {"_mm": "mm", "_hu": "HU", "_px": "clinical pixels", "_minutes": "minutes"}
"""Unit of a setting by the end of its name."""
LIMITS = {
    annotated_types.Ge: "at least",
    annotated_types.Gt: "above",
    annotated_types.Le: "at most",
    annotated_types.Lt: "below",
}
SIMPLE = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
METHOD = "methods.<name>."
INSET = "figures.insets[]."


class Setting(typing.NamedTuple):
    """One key as the page shows it."""

    key: str
    allowed: str
    default: str
    unit: str
    meaning: str
    re_runs: str


def allowed(annotation: typing.Any, metadata: typing.Sequence[typing.Any] = ()) -> str:
    """What a type lets through, in words."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return allowed(arguments[0], [*arguments[1:], *metadata])
    limits = [m for given in metadata for m in (given.metadata if isinstance(given, FieldInfo) else [given])]
    if annotation in SIMPLE:
        pattern = next((m.pattern for m in limits if getattr(m, "pattern", None)), None)
        words = [f"{LIMITS[type(m)]} {getattr(m, type(m).__name__.lower())}" for m in limits if type(m) in LIMITS]
        return (
            config.IN_WORDS[pattern]
            if pattern
            else ", ".join([SIMPLE[annotation], *[" and ".join(words)][: len(words)]])
        )
    if origin is typing.Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (typing.Union, types.UnionType):
        return "; or ".join("`null`" if part is type(None) else allowed(part) for part in arguments)
    if origin is list:
        return f"a list: {allowed(arguments[0])}"
    if origin is tuple:
        return f"[{', '.join(allowed(part) for part in arguments)}]"
    if origin is dict:
        return "keys and values"
    return "a section of its own, see below"


def settings() -> Iterator[tuple[str, str, list[Setting]]]:
    """Title, meaning and settings of each section, in the order of the file."""
    reach = _reach()
    sections = {"": config.Experiment} | dict(_sections(config.Experiment))
    for prefix, model in sections.items():
        if found := _own(model, prefix, reach):
            yield f"`{prefix.rstrip('.')}`" if prefix else "The experiment itself", _meaning(model), found
    yield from _methods(reach)
    yield f"`{INSET.rstrip('.')}`", _meaning(config.Inset), _own(config.Inset, INSET, reach)


def _own(
    model: type[config.Section], prefix: str, reach: dict[str, str], without: typing.Collection[str] = ()
) -> list[Setting]:
    """The settings of a section itself."""
    return [
        _setting(prefix + name, field, reach)
        for name, field in model.model_fields.items()
        if name not in without and not _is_section(field.annotation)
    ]


def _meaning(model: type[config.Section]) -> str:
    return "" if model is config.Experiment else (model.__doc__ or "").strip()


def _methods(reach: dict[str, str]) -> Iterator[tuple[str, str, list[Setting]]]:
    """As `settings`, of a method: what all have, what trained ones have, and what each kind has of its own."""
    of_all = _setting(f"{METHOD}kind", config.Method.model_fields["kind"], reach)
    kinds, default = ", ".join(f"`{kind}`" for kind in config.KINDS), f'`"{config.KIND}"`'
    yield f"`{METHOD.rstrip('.')}`", _meaning(config.Method), [of_all._replace(allowed=kinds, default=default)]
    trained, shared = "those that are trained", config.TrainedMethod.model_fields
    yield f"`{METHOD.rstrip('.')}` of {trained}", "", _own(config.TrainedMethod, METHOD, reach, ["kind"])
    told: set[str] = set()
    for kind, model in config.KINDS.items():
        title = f"of kind `{kind}`"
        if found := _own(model, METHOD, reach, shared):
            # A key that two kinds have, with a default each, is told of each.
            found = [
                one._replace(key=one.key.replace("<name>", f"<{kind}>")) if one.key in told else one for one in found
            ]
            told |= {one.key for one in found}
            yield f"`{METHOD.rstrip('.')}` {title}", _meaning(model), found
        if issubclass(model, config.TrainedMethod):
            for prefix, section in _sections(model, METHOD):
                yield f"`{prefix.rstrip('.')}` {title}", _meaning(section), _own(section, prefix, reach)


def _is_section(annotation: typing.Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, config.Section)


def _sections(model: type[config.Section], prefix: str = "") -> Iterator[tuple[str, type[config.Section]]]:
    for name, field in model.model_fields.items():
        if _is_section(field.annotation):
            yield f"{prefix}{name}.", field.annotation
            yield from _sections(field.annotation, f"{prefix}{name}.")


def _setting(key: str, field: FieldInfo, reach: dict[str, str]) -> Setting:
    if key == "methods":
        default = "`proposed`, `bicubic` and `cyclegan`, as in config.yaml"
    elif field.is_required():
        default = "none: it must be given"
    else:
        value = field.get_default(call_default_factory=True)
        default = f"`{json.dumps(value)}`"
    return Setting(
        key,
        "for each method, by its name: the keys below"
        if key == "methods"
        else allowed(field.annotation, field.metadata),
        default,
        next((unit for end, unit in UNITS.items() if key.endswith(end)), ""),
        field.description or "",
        reach[key],
    )


def _reach() -> dict[str, str]:
    """What each key re-runs, as the tests of the workflow have it."""
    file = ROOT / "tests" / "workflow" / "test_settings.py"
    spec = importlib.util.spec_from_file_location("test_settings", file)
    spec.loader.exec_module(tests := importlib.util.module_from_spec(spec))
    found = {key: f"runs {_listed(rules)} again, and what follows from it" for key, (_, rules) in tests.REACHES.items()}
    found |= dict.fromkeys(tests.RE_RUNS_NOTHING, "re-runs nothing")
    found |= {key: _sentence(test) for key, test in tests.JOBS.items()}
    found = {re.sub(r"^methods\.\w+\.", METHOD, key): text for key, text in found.items()}
    return found | {f"{INSET}{key}": found["figures.insets"] for key in config.Inset.model_fields}


def _listed(rules: typing.Iterable[str]) -> str:
    return ", ".join(f"`{rule}`" for rule in sorted(rules))


def _sentence(test: str) -> str:
    return test.removeprefix("test_").replace("_s_", "'s ").replace("_re_", " re-").replace("_", " ")


def page() -> str:
    """The settings as Markdown."""
    shipped = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    lines = []
    for title, meaning, found in settings():
        lines += [f"## {title}", "", meaning, ""]
        for one in found:
            lines += [f"```{{setting}} {one.key}", one.meaning, "", f":Allowed: {one.allowed}"]
            lines += [f":Unit: {one.unit}"] if one.unit else []
            lines += [
                f":Default: {one.default}{_in_config(one, shipped)}",
                f":A change: {one.re_runs}",
                "```",
                "",
            ]
    return "\n".join(lines)


def _in_config(setting: Setting, shipped: dict) -> str:
    """What the default experiment has instead, where that is something else."""
    value: typing.Any = shipped
    for part in setting.key.split("."):
        if not isinstance(value, dict) or part not in value:
            return ""
        value = value[part]
    text = f"`{json.dumps(value)}`"
    same = setting.key == "methods" or yaml.safe_load(text.strip("`")) == _plain(setting.default)
    return "" if same else f"; in config.yaml {text}"


def _plain(default: str) -> typing.Any:
    return yaml.safe_load(default.strip("`")) if default.startswith("`") else None


def _fill(app: Sphinx, name: str, source: list[str]) -> None:
    if name == PAGE:
        source[0] += "\n\n" + page()


def setup(app: Sphinx) -> dict:
    """Add the settings to their page, and a kind of entry for them."""
    app.add_object_type("setting", "setting", indextemplate="pair: %s; setting")
    app.connect("source-read", _fill)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
