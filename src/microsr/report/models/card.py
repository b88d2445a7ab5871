"""The card of a trained model: Markdown, headed by YAML as Hugging Face reads it.

It says what the model was trained on, for which scans it is meant, and what was measured of it; of what is not known,
that it is not. It names cases as their experiment does, but no paths, and no people.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

import yaml

from microsr.core.registry.methods import METHODS
from microsr.report.models.description import UNKNOWN, Description

MARK = "library_name: microsr"
"""In every card."""
TAGS = ["microsr", "super-resolution", "computed-tomography", "micro-ct", "medical-imaging", "not-for-diagnosis"]
PAPER = "T. Zheng et al., Super-resolution of clinical CT volumes with modified CycleGAN using micro CT volumes (2020)"
PAPER_PAGE = "https://arxiv.org/abs/2004.03272"
FAR = 15
"""Per cent by which pixel sizes may differ until `microsr superresolve` warns."""
WIDTH = 100


def write_card(known: Description, file: str) -> str:
    """The card of a model that is known so far; file: the name of the model's own file, beside the card."""
    head = {
        "license": (known.license or "other").lower(),
        "library_name": "microsr",
        "pipeline_tag": "image-to-image",
        "tags": TAGS,
    }
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---",
        f"# {known.title}",
        f"Super-resolution of clinical CT to micro-CT (uCT) level, {known.scale} times in-plane, with `microsr`.",
        "**Not for diagnosis.** What is finer than the scan resolves is plausible, not measured.",
        *_say_what_it_is(known),
        *_say_what_it_is_for(known, file),
        *_say_what_it_was_trained_on(known),
        *_say_what_was_measured(known),
        *_say_how_it_came_about(known),
    ]
    return "\n\n".join(part if part[0] in "|-#*`" else textwrap.fill(part, WIDTH) for part in parts) + "\n"


def _say_what_it_is(known: Description) -> Iterator[str]:
    facts = known.facts
    low, high = facts["window_hu"]
    kind = facts.get("kind", "cyclegan")
    about = METHODS[kind].help if kind in METHODS else "A method of an extension."
    planes = [f"{scale} x" for scale in known.noise_scales]
    yield "## What it is"
    yield _table(
        ("", ""),
        ("method", f"{kind}: {about}"),
        (
            "network",
            f"{facts['network']}{', for many draws' if facts.get('sampler') else ''}; {known.parameters} weights",
        ),
        ("factor", f"{known.scale}, in-plane; slices stay as they are"),
        ("slices it sees", _slices(facts)),
        ("pixels it takes", _millimetres(facts["clinical_spacing_mm"])),
        ("pixels it makes", _millimetres(_made(known))),
        ("window", f"{low:g} to {high:g} HU; beyond it the scan is interpolated"),
        (
            "random planes",
            f"at {', '.join(planes)} the scan's size: each choice is another image" if planes else "none",
        ),
    )


def _say_what_it_is_for(known: Description, file: str) -> Iterator[str]:
    pixels = known.facts["clinical_spacing_mm"]
    yield "## Use"
    yield _say_how_to_run(known, file)
    near = (
        f"whose pixels are within {FAR} % of {pixels:.3g} mm in-plane" if pixels
        else "of the pixel size it was trained on, which this model does not say"
    )  # fmt: skip
    yield (
        f"Meant for research: clinical CT in HU {near}, of tissue like that of the training, from a scanner like the "
        "one below."
    )
    yield "\n".join(
        [
            "**Not meant for**",
            "",
            "- diagnosis, or any decision about a patient;",
            "- measuring, counting or finding structures that the scan itself does not resolve: they are invented;",
            "- tissue, disease, scanners or pixel sizes that the training did not have: no image warns of them;",
            "- data to train or test other methods on, as if it were uCT.",
        ]
    )


def _say_how_to_run(known: Description, file: str) -> str:
    if not file.endswith(".onnx"):
        return f"```sh\nmicrosr superresolve SCAN --model {file} --output sr.ome.zarr\n```"
    lines = [
        "```python",
        "import numpy as np",
        "import onnxruntime",
        "",
        f"image = np.zeros((1, {known.facts.get('slices', 1)}, 64, 64), np.float32)  # HU [batch, slices, y, x]",
        "draw = np.random.default_rng(0).standard_normal",
        f"noise = {{f'noise_{{k}}': draw((1, 1, k * 64, k * 64), np.float32) for k in {known.noise_scales}}}",
        f'[super_resolved] = onnxruntime.InferenceSession("{file}").run(None, {{"image": image}} | noise)  # HU',
        "```",
    ]
    return "\n".join(lines)


def _say_what_it_was_trained_on(known: Description) -> Iterator[str]:
    yield "## Trained on"
    if known.trained_on:
        yield known.trained_on
    if known.origins:
        yield _table(("training case", "origin"), *known.origins.items())
        if UNKNOWN in known.origins.values():
            yield "The records of the data were not beside the model when this card was written."
    elif not known.trained_on:
        yield "The model does not name its training data."
    yield _table(("scanner", ""), *_scanner(known))


def _scanner(known: Description) -> Iterator[tuple[str, str]]:
    """What is known of the scanners that it learned from."""
    settings = known.facts["provenance"].get("settings")
    settings = settings if isinstance(settings, dict) else {}
    method, stated, pairs = _section(settings, "method"), _section(settings, "scanner"), known.scanners
    if "seen_by" not in method:
        yield "scans", "the clinical CTs of the training, as they are"
        return
    if method["seen_by"] == "stated":
        yield "scans", "uCT through one simulated scanner, which the model then takes every scan for"
        kernels, span = [stated.get("kernel", UNKNOWN)], [1.0, 1.0]
    else:
        yield "scans", "uCT through simulated scanners, drawn anew for each sample"
        kernels = sorted({pairs["kernel"], *pairs["kernels"]}) if pairs else [UNKNOWN]
        span = pairs["slice_sigma"] if pairs else None
    yield "kernels", ", ".join(kernels)
    sigma = stated.get("slice_sigma_mm")
    yield "slice profile, SD of a Gaussian", _range(sigma, span, "mm")
    drawn = [1.0, 1.0] if method["seen_by"] == "stated" else method.get("noise_range", (1.0, 1.0))
    if method.get("noise", "stated") == "stated":
        yield "noise, SD in the lung", _range(stated.get("noise_hu"), drawn, "HU")
    else:
        yield "noise", f"as measured on the training's clinical CTs, its SD times {drawn[0]:g} to {drawn[1]:g}"


def _say_what_was_measured(known: Description) -> Iterator[str]:
    yield "## Validation"
    if not known.calibration:
        of_draws = known.facts.get("kind") == "posterior"
        yield (
            "Not measured: how far the spread of its draws can be believed is not known." if of_draws else
            "Not measured. Only of a model of kind posterior do draws say how sure an image is."
        )  # fmt: skip
        return
    yield (
        f"By `microsr evaluate uncertainty` on {', '.join(known.judged)}; it tells nothing of other scanners and "
        "tissue. A coverage or spread over skill below its ideal means that the draws are too sure."
    )
    rows = [
        (
            row.name,
            f"{row.mean:.3g}",
            f"{row.low:.3g} to {row.high:.3g}",
            "" if row.ideal is None else f"{row.ideal:.3g}",
        )
        for row in known.calibration
    ]
    yield _table(("", "mean of the cases", "from case to case", "ideal"), *rows)


def _say_how_it_came_about(known: Description) -> Iterator[str]:
    facts, provenance = known.facts, known.facts["provenance"]
    yield "## Provenance"
    yield _table(
        ("", ""),
        ("microsr", str(provenance.get("microsr", UNKNOWN))),
        ("version of the training's code", str(provenance.get("code", UNKNOWN))),
        ("steps, seed", f"{facts['steps']}, {facts['seed']}"),
        ("SHA-256 of the model that was exported", known.checksum),
    )
    yield "All settings, and a SHA-256 of each file of the training, are in the model: `microsr info`."
    yield f"The software is under the MIT licence. {_say_licence(known)} The method follows {PAPER}, {PAPER_PAGE}."


def _say_licence(known: Description) -> str:
    if known.license:
        return f"The model is under {known.license}."
    return "The model is under no licence yet: the owners of the data that it was trained on decide."


def _made(known: Description) -> float | None:
    """Pixel size of what it makes of the scans it was trained for, mm."""
    pixels = known.facts["clinical_spacing_mm"]
    return pixels and pixels / known.scale


def _slices(facts: dict[str, Any]) -> str:
    """How many slices it sees, and how far apart."""
    if not facts.get("slice_mm"):
        return "the one that it magnifies"
    nearest, farthest = facts["slice_mm"]
    apart = f"{nearest:.3g}" if farthest / nearest < 1.01 else f"{nearest:.3g} to {farthest:.3g}"
    return f"{facts['slices']}, the one that it magnifies in the middle, {apart} mm apart"


def _millimetres(size: float | None) -> str:
    return UNKNOWN if size is None else f"{size:.4g} mm"


def _range(value: float | None, times: list[float] | None, unit: str) -> str:
    if value is None or times is None:
        return UNKNOWN
    low, high = (value * factor for factor in times)
    return f"{low:.3g} {unit}" if low == high else f"{low:.3g} to {high:.3g} {unit}"


def _section(settings: dict[str, Any], name: str) -> dict[str, Any]:
    found = settings.get(name)
    return found if isinstance(found, dict) else {}


def _table(*rows: tuple[str, ...]) -> str:
    """A table of Markdown; the first row is its head."""
    lines = [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in rows]
    return "\n".join([lines[0], "|" + "---|" * len(rows[0]), *lines[1:]])
