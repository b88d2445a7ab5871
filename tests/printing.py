"""What a journal's check finds in a figure: read from the bytes of its PDF, and from the drawn figure. Shares no code
with microsr.
"""

import re
import zlib
from dataclasses import dataclass

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text


@dataclass
class Page:
    """A PDF of one page: size in inches, kinds of fonts, how many are embedded, and dpi of each image as it is
    printed.
    """

    width: float
    height: float
    kinds: set
    fonts: int
    embedded: int
    dpi: list


def read_page(path):
    """Read the only page of a PDF as matplotlib writes them: objects in the open, streams deflated or raw."""
    document = path.read_bytes()
    bodies = dict(re.findall(rb"(\d+) 0 obj\n(.*?)\nendobj", document, re.DOTALL))
    (box,) = re.findall(rb"/MediaBox \[ ?([^\]]*?) ?\]", document)
    left, bottom, right, top = map(float, box.split())
    descriptors = [body for body in bodies.values() if b"/Type /FontDescriptor" in body]
    (page,) = (body for body in bodies.values() if re.search(rb"/Type /Page\s", body))
    content = _stream(bodies[re.search(rb"/Contents (\d+) 0 R", page)[1]])
    pixels = {}
    for name, number in re.findall(rb"/(I\d+) (\d+) 0 R", document):
        pixels[name] = int(re.search(rb"/Width (\d+)", bodies[number])[1])
    drawn = re.findall(rb"q ([\d.]+) 0 0 -?[\d.]+ -?[\d.]+ -?[\d.]+ cm /(I\d+) Do", content)
    assert {name for _, name in drawn} == set(pixels), "an image was overlooked"
    return Page(
        (right - left) / 72,
        (top - bottom) / 72,
        set(re.findall(rb"/Subtype /(Type\w+|CIDFontType\w+)", document)),
        len(descriptors),
        sum(b"/FontFile2" in body for body in descriptors),
        [72 * pixels[name] / float(width) for width, name in drawn],
    )


def _stream(body):
    data = body.split(b"stream\n", 1)[1].rsplit(b"\nendstream", 1)[0]
    return zlib.decompress(data) if b"/FlateDecode" in body else data


def faults(figure, smallest=6.0):
    """What a reviewer would mark: small text, text that the edge cuts, texts over each other; one line each."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    renderer, page = canvas.get_renderer(), figure.bbox
    found, boxes, undrawn = [], [], set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        low, high = sorted(axis.get_view_interval())
        beyond = [t for t in axis.get_major_ticks() if not low - 1e-9 <= t.get_loc() <= high + 1e-9]
        undrawn |= {label for tick in beyond for label in (tick.label1, tick.label2)}
    for text in figure.findobj(Text):
        if not text.get_text().strip() or not text.get_visible() or text in undrawn:
            continue
        if text.axes is not None and not text.axes.axison and text not in text.axes.texts:
            continue
        if text.get_fontsize() < smallest:
            found.append(f"{text.get_text()!r} in {text.get_fontsize():g} pt")
        box = text.get_window_extent(renderer)
        outside = max(page.x0 - box.x0, box.x1 - page.x1, page.y0 - box.y0, box.y1 - page.y1)
        if outside > 0.5:
            found.append(f"{text.get_text()!r} is cut by {outside / figure.dpi:.3f} in")
        boxes.append((text.get_text(), box))
    for place, (name, box) in enumerate(boxes):
        for other, beside in boxes[place + 1 :]:
            wide = min(box.x1, beside.x1) - max(box.x0, beside.x0)
            high = min(box.y1, beside.y1) - max(box.y0, beside.y0)
            # Boxes hold room for descenders, so that they may touch.
            if wide > 0.01 * figure.dpi and high > 0.025 * figure.dpi and (name, box.bounds) != (other, beside.bounds):
                found.append(f"{name!r} and {other!r} overlap")
    return found
