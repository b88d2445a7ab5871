"""The report's viewer: what each comparison figure shows, in HU, packed into the page, and the Bokeh figure that shows
it.

In: records of comparison figures and the volumes that they compare. Out: plain JSON values for the page. All images of
a view cover the same region of the same slice; the clinical CT keeps its own pixels.
"""

from __future__ import annotations

import base64
import json
import re
import zlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from bokeh.embed import json_item
from bokeh.models import ColumnDataSource, LinearColorMapper, PanTool, Range1d, ScaleBar, Span, WheelZoomTool
from bokeh.plotting import figure
from bokeh.resources import Resources

from microsr.config import Inset
from microsr.core.errors import UserError, brief
from microsr.evaluation.names import method_name
from microsr.figures.pictures.comparison import MARGIN_MM, Field, lung_field
from microsr.volume.alignment import scale_of
from microsr.volume.storage import Volume, open_mask, open_volume

MOST_PIXELS = 4_000_000
"""Super-resolved pixels of all images of all views together: at most 8 MB of HU, about 5 MB of the page."""
SPREAD_HU = (0, 300)
"""SD of draws that is black and white, whatever the reader's window."""
FEWEST = 8
"""Clinical pixels along each side of a region, at least."""
GREYS = [f"#{grey:02x}{grey:02x}{grey:02x}" for grey in range(256)]


@dataclass(frozen=True)
class Source:
    """What a comparison figure compares: its record, the clinical CT, the volume of each method, and the truth if there
    is one. draws, sd: of a sampler, by what each is called.
    """

    record: Path
    clinical: Path
    methods: dict[str, Path]
    truth: Path | None = None
    draws: dict[str, Path] = field(default_factory=dict)
    sd: dict[str, Path] = field(default_factory=dict)

    @property
    def superresolved(self) -> dict[str, Path]:
        """All volumes that hold slices of their own: of methods, draws and SD."""
        return self.methods | self.draws | self.sd


@dataclass(frozen=True)
class Layer:
    """An image of a view: HU, int16 [rows, columns], with `scale` pixels to a clinical pixel.

    draw: whether it is one of several draws that flicker through one another. window: HU that are black and white, of
    an image that is not shown in the reader's window.
    """

    name: str
    hu: np.ndarray
    scale: int
    draw: bool = False
    window: tuple[int, int] | None = None


@dataclass(frozen=True)
class View:
    """A region of a slice. size: width and height, mm. sides: the patient's side that is at the left and at the top, as
    "RA"; "" where the slice is not axial. where: the region, in words. training_set: of the trained methods."""

    title: str
    where: str
    size: tuple[float, float]
    sides: str
    training_set: str
    layers: list[Layer]


def read_source(words: list[str]) -> Source:
    """What follows a flag --view: the figure's record, clinical=PATH, method/NAME=PATH for each method in order,
    perhaps truth=PATH, and of a sampler draw/NAME=PATH and sd/NAME=PATH.

    Raises
    ------
    UserError
        A word is of another kind, or the clinical CT or every method is missing.
    """
    record, *pairs = words
    clinical, truth = None, None
    named: dict[str, dict[str, Path]] = {"method": {}, "draw": {}, "sd": {}}
    for pair in pairs:
        word, _, path = pair.partition("=")
        kind, _, name = word.partition("/")
        if word == "clinical" and path:
            clinical = Path(path)
        elif word == "truth" and path:
            truth = Path(path)
        elif kind in named and name and path:
            named[kind][name] = Path(path)
        else:
            raise UserError(
                f"--view: '{pair}' must be clinical=PATH, method/NAME=PATH, truth=PATH, draw/NAME=PATH or sd/NAME=PATH"
            )
    if clinical is None or not named["method"]:
        raise UserError(f"--view {record}: clinical=PATH and a method/NAME=PATH must follow it")
    return Source(Path(record), clinical, named["method"], truth, named["draw"], named["sd"])


def make_views(sources: list[Source], most: int = MOST_PIXELS) -> tuple[list[View], dict[Path, list[int]]]:
    """A view of each comparison, and the slices that were read of each volume.

    most: super-resolved pixels of all images together. A region that is larger than its share of them is cut to a
    square about the figure's first inset.

    Raises
    ------
    UserError
        A record or a volume cannot be read, or a volume does not hold the slice.
    """
    views: list[View] = []
    read: dict[Path, list[int]] = {}
    for source in sources:
        shown = _read_record(source.record)
        index = shown["slice"]
        clinical = open_volume(source.clinical)
        _check_holds(source.clinical, clinical, index, source.record)
        lung = np.asarray(open_mask(source.clinical)[index]) > 0
        share = most // (len(sources) * (len(source.superresolved) + (source.truth is not None)))
        volumes = {name: open_volume(path) for name, path in source.superresolved.items()}
        scale = scale_of(next(iter(volumes.values())), clinical)
        shown_field = region(lung, clinical.spacing, shown["insets"], share, scale)
        layers = [_layer("Clinical CT", clinical, index, shown_field, 1)]
        read.setdefault(source.clinical, []).append(index)
        held: dict[str, Layer] = {}
        for name, path in source.superresolved.items():
            volume = volumes[name]
            place = _position(path, volume.attributes.get("slices", []), index)
            held[name] = _layer(method_name(name), volume, place, shown_field, scale)
            read.setdefault(path, []).append(place)
        layers += [held[name] for name in source.methods]
        if source.truth is not None:
            place = shown["truth"][0] if shown["truth"] else index
            truth = open_volume(source.truth)
            _check_holds(source.truth, truth, place, source.record)
            layers.append(_layer("Truth", truth, place, shown_field, scale))
            read.setdefault(source.truth, []).append(place)
        layers += [replace(held[name], draw=True) for name in source.draws]
        layers += [replace(held[name], window=SPREAD_HU) for name in source.sd]
        rows, columns = shown_field.shape
        x, y = clinical.spacing[:2]
        whole = shown_field == lung_field(lung, clinical.spacing, shown["insets"])
        shown_region = f"the lung and {MARGIN_MM:g} mm around it" if whole else "a part of what the figure shows"
        views.append(
            View(
                title=shown["title"] or str(clinical.attributes.get("case", source.record.stem)),
                where=f"slice {index}, {columns * x:.3g} × {rows * y:.3g} mm ({shown_region}), "
                f"pixels of {x:.3g} and {x / scale:.3g} mm",
                size=(columns * x, rows * y),
                sides=sides(clinical.direction),
                training_set=shown["training_set"],
                layers=layers,
            )
        )
    return views, {path: sorted(set(slices)) for path, slices in read.items()}


def region(lung: np.ndarray, spacing: tuple[float, ...], insets: list[Inset], most: int, scale: int) -> Field:
    """The region that the comparison figure shows, or of it a square of at most `most` super-resolved pixels.

    lung: bool [rows, columns], clinical pixels. insets: of the figure. scale: SR pixels along a clinical one.
    """
    shown = lung_field(lung, spacing, insets)
    rows, columns = shown.shape
    if rows * columns * scale**2 <= most:
        return shown
    side = max(FEWEST, int((most / scale**2) ** 0.5))
    height, width = min(rows, side), min(columns, side)
    if insets:
        middle = (insets[0].row + insets[0].size // 2, insets[0].column + insets[0].size // 2)
    else:
        middle = ((shown.top + shown.bottom) // 2, (shown.left + shown.right) // 2)
    top = min(max(middle[0] - height // 2, shown.top), shown.bottom - height)
    left = min(max(middle[1] - width // 2, shown.left), shown.right - width)
    return Field(top, top + height, left, left + width)


def sides(direction: tuple[float, ...]) -> str:
    """The patient's sides at the left and at the top of an axial slice shown as radiologists see it; "" if it is not
    axial.
    """
    return "RA" if min(abs(direction[0]), abs(direction[4])) > 0.9 else ""


def pack(hu: np.ndarray) -> str:
    """int16 [rows, columns] as text: differences along each row, low bytes before high ones, zlib, base64."""
    steps = np.diff(hu.astype(np.int32), axis=1, prepend=0).astype("<i2")  # wraps, and so does the sum that undoes it
    pairs = np.ascontiguousarray(steps).view(np.uint8).reshape(-1, 2)
    return base64.b64encode(zlib.compress(pairs.T.tobytes(), 9)).decode("ascii")


def view_json(view: View) -> dict[str, Any]:
    """A view as plain values for the page's script."""
    return {
        "title": view.title,
        "where": view.where,
        "width": view.size[0],
        "height": view.size[1],
        "sides": view.sides,
        "trainingSet": view.training_set,
        "layers": [
            {
                "name": layer.name,
                "rows": layer.hu.shape[0],
                "columns": layer.hu.shape[1],
                "repeat": max(one.scale for one in view.layers) // layer.scale,
                "draw": layer.draw,
                "window": layer.window,
                "data": pack(layer.hu),
            }
            for layer in view.layers
        ],
    }


def bokeh_script() -> str:
    """BokehJS, to be put into the page."""
    scripts = Resources(mode="inline", components=["bokeh"], minified=True, log_level="error").js_raw
    return re.sub(r"(?m)^//# sourceMappingURL=.*$", "", "\n".join(scripts))


def bokeh_item(window: tuple[float, float]) -> dict[str, Any]:
    """The empty figure that the page's script fills, as `Bokeh.embed.embed_item` takes it; the same at each call.

    Models of it by name: "viewer" (the figure), "shown" (the image's data), "window" (its grey scale), "divider".
    """
    plot = figure(
        name="viewer", sizing_mode="stretch_both", min_width=100, min_height=100, toolbar_location=None, tools=[],
        x_range=Range1d(0, 1), y_range=Range1d(0, 1), x_axis_type=None, y_axis_type=None, min_border=0,
        outline_line_color=None, background_fill_color="#000000", border_fill_color="#000000", output_backend="canvas",
    )  # fmt: skip
    wheel = WheelZoomTool(zoom_on_axis=False)
    plot.add_tools(PanTool(), wheel)
    plot.toolbar.active_scroll = wheel
    plot.toolbar.logo = None
    plot.grid.visible = False
    mapper = LinearColorMapper(palette=GREYS, low=window[0], high=window[1], name="window")
    data = {"image": [np.zeros((2, 2), np.int16)], "x": [0.0], "y": [0.0], "width": [1.0], "height": [1.0]}
    source = ColumnDataSource(data=data, name="shown")
    plot.image(image="image", x="x", y="y", dw="width", dh="height", source=source, color_mapper=mapper)
    plot.add_layout(
        Span(location=0, dimension="height", line_color="#F0E442", line_width=2, visible=False, name="divider")
    )
    bar = ScaleBar(
        range=plot.x_range, unit="mm", location="bottom_right", bar_length=0.25, margin=8, padding=6,
        border_line_color=None, background_fill_color="#000000", background_fill_alpha=0.6, bar_line_color="#FFFFFF",
        bar_line_width=3, label_text_color="#FFFFFF", label_text_font_size="13px",
    )  # fmt: skip
    plot.add_layout(bar)
    item = json.dumps(json_item(plot, "plot"))
    numbers: dict[str, str] = {}
    # Bokeh numbers its models through the life of the process.
    item = re.sub(r'"p\d+"', lambda found: numbers.setdefault(found[0], f'"p{len(numbers) + 1}"'), item)
    return json.loads(item)


def _read_record(path: Path) -> dict[str, Any]:
    """Slice, insets, title and training set of a comparison figure, and the slice of the truth, from its record."""
    try:
        run = json.loads(path.read_text(encoding="utf-8"))
        read = {Path(name).parts: slices for name, slices in run["slices_read"].items()}
        sets = [parts[-2] for parts in read if len(parts) > 3 and parts[-4] == "superresolved" and parts[-2] != "none"]
        return {
            "slice": int(run["slice"]),
            "insets": [Inset(**inset) for inset in run["insets"]],
            "title": run["settings"].get("title"),
            "training_set": sets[0] if sets else "none",
            "truth": next((slices for parts, slices in read.items() if parts[-1] == "truth.ome.zarr"), None),
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path}: is no record of a comparison figure ({brief(error)}); draw the figure again"
        ) from None


def _check_holds(path: Path, volume: Volume, index: int, record: Path) -> None:
    if not 0 <= index < volume.shape[0]:
        raise UserError(f"{path}: has no slice {index}, which {record} tells of; draw the figure again")


def _position(path: Path, slices: list[int], index: int) -> int:
    if index not in slices:
        raise UserError(
            f"{path}: does not hold slice {index}, which the comparison figure shows; draw the figure again"
        )
    return slices.index(index)


def _layer(name: str, volume: Volume, index: int, field: Field, scale: int) -> Layer:
    """The field of a slice, turned so that anterior is up and the patient's right is on the left."""
    rows, columns = slice(field.top * scale, field.bottom * scale), slice(field.left * scale, field.right * scale)
    hu = np.asarray(volume.array[index, rows, columns])
    if volume.direction[0] < 0:
        hu = hu[:, ::-1]
    if volume.direction[4] < 0:
        hu = hu[::-1]
    return Layer(name, np.ascontiguousarray(hu, dtype=np.int16), scale)
