"""The report that the workflow makes, of a real run of the smallest experiment."""

import re

import pytest
from browsing import Opened

from microsr.report.figures import AS_TABLE

pytestmark = pytest.mark.workflow
SMOKE = ["--configfile", "experiments/smoke.yaml"]


def test_the_workflow_s_report_holds_every_figure_and_can_be_looked_into(finished, chromium):
    report = finished.folder / "results/smoke/report.html"
    assert report.stat().st_size < 15e6
    text = report.read_text(encoding="utf-8")
    shown = set(re.findall(r'<figure id="figure-([\w-]+)">', text))
    assert shown == {path.stem for path in (report.parent / "figures").glob("*.png")} - set(AS_TABLE)
    opened = Opened(chromium, report)
    names = opened.js("return [...document.querySelectorAll('#images label')].map(l => l.textContent.trim())")
    assert names == [
        *("1 Clinical CT", "2 Proposed", "3 Bicubic", "4 CycleGAN"),
        *("5 Regression", "6 Posterior", "7 Posterior mean", "8 Truth"),
        *("9 Draw 1", "10 Draw 2", "11 SD of draws (0 to 300)"),
    ]
    pictures = set()
    for key in "12345678":
        opened.press(key)
        pictures.add(opened.picture().tobytes())
    assert len(pictures) == 8
    assert opened.console() == []
    assert [address for address in opened.requests() if not address.startswith(("data:", "blob:"))] == [report.as_uri()]


def test_another_template_makes_the_report_again_and_nothing_else(finished):
    finished.edit("src/microsr/report/page/page.css", ":root {", ":root { --more: 1;")
    assert set(finished.plan(*SMOKE)) == {"write_report", "all"}
    finished.edit("src/microsr/report/page/page.css", ":root { --more: 1;", ":root {")
    assert not finished.plan(*SMOKE)
