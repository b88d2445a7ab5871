"""The site is whole: it builds without a warning, needs no network, and has every page, setting and function that is
named.
"""

import contextlib
import importlib
import importlib.util
import inspect
import re
import subprocess
import sys
import types
from html.parser import HTMLParser
from pathlib import Path

import pages
import pytest
from pages import PAGES, ROOT

from microsr.config import KINDS, Experiment, Inset, Section
from microsr.evaluation.catalogue import METRICS

CODE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
TOP = {path.name for path in ROOT.iterdir()}
FILES = (
    ".py",
    ".md",
    ".csv",
    ".raw",
    ".yaml",
    ".tsv",
    ".png",
    ".html",
    ".zarr",
    ".json",
    ".log",
    ".pt",
    ".gz",
    ".tif",
    ".mha",
    ".nii",
)
NOT_HERE = re.compile(
    r"docs/_build.*|experiments/(my|longer|smooth)\.yaml|src/microsr/"
    r"(training/total_variation|training/methods/median|networks/tiny|inference/lanczos|formats/vtk|"
    r"evaluation/protocols/density|figures/charts/forest)\.py|report/forest\.rst"
)
"""What the reader makes: the site, and files that a page has written."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; any warning (a link to nowhere, a page in no table of contents) is an error."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [
            sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-d", str(folder / "trees"),
            "docs", str(folder / "html"),
        ],
        cwd=ROOT, encoding="utf-8", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:]
    return folder / "html"


class Page(HTMLParser):
    """What a built page loads, where it leads to, and what it can be led to."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.loads, self.links, self.ids, self.math, self.images = [], [], set(), 0, []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.ids.add(found.get("id"))
        self.math += tag == "math"
        if tag == "a":
            self.links.append(found.get("href", ""))
        elif tag == "link" and found.get("rel") in ("stylesheet", "icon", "preload", "preconnect"):
            self.loads.append(found["href"])
        elif "src" in found:
            self.loads.append(found["src"])
        if tag == "img":
            self.images.append(found.get("alt", ""))


@pytest.fixture(scope="module")
def built(site: Path) -> dict[str, Page]:
    return {str(path.relative_to(site)): Page(path) for path in site.rglob("*.html")}


def test_every_page_is_in_the_site(built):
    assert {f"{page.stem}.html" for page in PAGES if page.parent == ROOT / "docs"} <= set(built)


def test_reading_the_site_needs_no_network(site, built):
    loads = [load for page in built.values() for load in page.loads]
    assert loads and not [load for load in loads if re.match(r"(\w+:)?//", load)]
    fetched = [
        path.name
        for path in site.rglob("*.css")
        if re.search(r"(url\(|@import) *[\"']?(https?:)?//", path.read_text(encoding="utf-8"))
    ]
    assert not fetched


def test_links_within_the_site_lead_somewhere(built):
    lost = []
    for name, page in built.items():
        for link in page.links:
            if re.match(r"\w+:", link):
                continue
            path, _, anchor = link.partition("#")
            target = (Path(name).parent / path if path else Path(name)).as_posix()
            parts = []
            for part in target.split("/"):
                parts = parts[:-1] if part == ".." else [*parts, part]
            target = "/".join(parts)
            if (target in built and anchor and anchor not in built[target].ids) or (
                target.endswith(".html") and target not in built
            ):
                lost.append(f"{name}: {link}")
    assert not lost


def test_formulas_are_mathml(built):
    assert built["method.html"].math > 30
    assert not [load for page in built.values() for load in page.loads if "mathjax" in load.lower()]


def test_images_have_a_text_for_those_who_do_not_see_them(built):
    assert all(all(alt.strip() for alt in page.images) for page in built.values())


def keys(model: type[Section], prefix: str = "") -> list[str]:
    """Dotted names of all settings of a model."""
    found = []
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            found += keys(field.annotation, f"{prefix}{name}.")
        else:
            found.append(f"{prefix}{name}")
    return found


OF_METHODS = dict.fromkeys(key for kind in KINDS.values() for key in keys(kind, "methods.<name>."))
ALL_KEYS = [*keys(Experiment), *OF_METHODS, *keys(Inset, "figures.insets[].")]


def test_every_setting_is_described_with_its_default(site):
    html = (site / "configuration.html").read_text(encoding="utf-8")
    entries = re.findall(r'(?s)<dl class="std setting">(.*?)</dl>\s*</dd></dl>', html)
    texts = {
        name: re.sub(r"<[^>]+>", " ", entry) for entry in entries for name in re.findall(r'id="setting-([^"]+)"', entry)
    }
    # What two kinds of method have, with a default each, is told of each of them.
    assert len({re.sub(r"^methods\.-\w+-", "methods.-name-", name) for name in texts}) == len(ALL_KEYS)
    assert all(all(f"{fact}" in text for fact in ("Allowed", "Default", "A change")) for text in texts.values())
    batch = next(text for name, text in texts.items() if name == "train.batch_size")
    assert "a whole number, at least 1" in batch and re.search(r"Default\W+4", batch) and "train" in batch


def test_a_page_s_mention_of_a_setting_or_function_is_a_link(site):
    method = (site / "method.html").read_text(encoding="utf-8")
    assert 'href="api.html#microsr.training.losses.downsample_loss"' in method
    assert 'href="configuration.html#setting-methods.-name-.losses.downsample"' in method


def metric_tables() -> types.ModuleType:
    """docs/extensions/metric_tables.py."""
    spec = importlib.util.spec_from_file_location("metric_tables", ROOT / "docs/extensions/metric_tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_of_metrics_are_those_of_the_catalogue():
    """Name, unit, what is best and what fools it, of every metric; else run docs/extensions/metric_tables.py."""
    made, page = metric_tables(), (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    assert made.renewed(page) == page
    rows = re.findall(r"^\| `([a-z0-9_<>-]+)` \| [^|]+ \| ([^|]+) \| [^|]+ \| [^|]+ \|$", page, re.MULTILINE)
    assert rows == [(metric.key, metric.better.removeprefix("best: ")) for metric in METRICS]


def test_a_table_of_metrics_that_is_lost_is_told():
    page = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="no table under the heading 'truth'"):
        metric_tables().renewed(page.replace("## truth", "## the truth"))


def mentions(page: Path) -> list[str]:
    """What a page sets in code type within its text."""
    return CODE.findall(pages.prose(page))


def is_function(mention: str) -> bool:
    """Whether `module.name`, with or without microsr before it, is something that can be imported or an attribute of
    it.
    """
    thing = importlib.import_module("microsr")
    for name in mention.removeprefix("microsr.").removesuffix("()").split("."):
        if inspect.ismodule(thing) and hasattr(thing, "__path__"):  # a package
            with contextlib.suppress(ModuleNotFoundError):
                thing = importlib.import_module(f"{thing.__name__}.{name}")
                continue
        if not hasattr(thing, name) and name not in getattr(thing, "__dataclass_fields__", {}):
            return False
        thing = getattr(thing, name, None)
    return True


def is_setting(mention: str) -> bool:
    """Whether it is the dotted name of a setting or of a section, of any method."""
    key = re.sub(r"^methods\.\w+", "methods.<name>", mention)
    return any(f"{known}.".startswith(f"{key}.") for known in ALL_KEYS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_functions_and_settings_that_a_page_names_exist(page):
    modules = {path.stem for path in (ROOT / "src/microsr").iterdir()} | {"microsr", *Experiment.model_fields}
    named = [mention.split(":")[0] for mention in mentions(page)]
    named = [m for m in named if re.fullmatch(r"[a-z_]+(\.[\w<>]+)+(\(\))?", m) and m.split(".")[0] in modules]
    named = [m for m in named if not m.endswith(FILES)]
    assert not [m for m in named if not is_function(m) and not is_setting(m)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_names_exist(page):
    paths = [
        m for m in mentions(page) if re.fullmatch(r"[\w./-]+", m) and "/" in m and m.split("/")[0] in TOP - {"results"}
    ]
    assert not [
        m
        for m in paths
        if not any((folder / m).exists() for folder in (ROOT, ROOT / "src/microsr")) and not NOT_HERE.fullmatch(m)
    ]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_a_page_lead_to_files_and_headings_on_github_too(page):
    lost = []
    for link in re.findall(r"\]\(([^)\s]+)\)", pages.prose(page)):
        if re.match(r"\w+:", link):
            assert link.startswith("https://"), link
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in headings(target)):
            lost.append(link)
    assert not lost


def headings(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"(?m)^#+ (.+)$", pages.prose(page))
    return {re.sub(r"[^\w\- ]", "", title.replace("`", "").lower()).replace(" ", "-") for title in titles}
