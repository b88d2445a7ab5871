"""The file of the report: the same from the same results, complete, and safe whatever names say."""

import json
import re

import pytest
from small_results import Results

from microsr import __version__, cli
from microsr.core.errors import UserError
from microsr.report.lineage import trace


def test_the_same_results_give_the_same_bytes(results):
    made = results()
    first = made.report("first.html").read_bytes()
    assert made.report("second.html").read_bytes() == first


def test_it_has_a_record_that_names_what_it_was_made_from(results):
    made = results()
    report = made.report()
    record = json.loads((made.folder / "report.html.run.json").read_text(encoding="utf-8"))
    names = {name.rpartition("/")[2] for name in record["inputs"]}
    assert {
        "clinical.ome.zarr",
        "truth.ome.zarr",
        "test1.ome.zarr",
        "summary.csv",
        "volumes.csv",
        "losses.png",
    } <= names
    assert {tuple(slices) for slices in record["slices_read"].values()} == {(0,), (1,)}
    assert record["settings"]["experiment"] == "small" and len(record["page"]) == 16
    assert trace(report)["record"] == record["record"]


def test_all_of_it_is_in_one_file(results):
    text = results().report().read_text(encoding="utf-8")
    body = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert not re.findall(r"(?:src|href)=\"(?!data:|#)", body)
    assert "default-src 'none'" in text and text.count("data:image/webp") == 6
    assert len(text) < 2_000_000, "Bokeh is 1.3 MB, the small results next to nothing"


def test_every_section_is_there_in_order(results):
    text = results().report().read_text(encoding="utf-8")
    headings = re.findall(r'<h2 id="(\w+)-heading"', text)
    assert headings == ["comparison", "data", "training", "evaluation", "provenance"]
    assert "Where patches were taken: train1, uCT" in text and "Table 1 of the paper" in text
    assert "Read the consistency first" in text, "each protocol has a sentence on how to read it"
    assert "train.epochs" in text and f"microsr {__version__}" in text


def test_captions_are_those_of_snakemake_s_report(results, tmp_path):
    made = results()
    arguments = made.arguments()
    captions = tmp_path / "captions"
    captions.mkdir()
    (captions / "losses.rst").write_text("Losses of ``x``, a < b.\n")
    arguments[arguments.index("--captions") + 1] = str(captions)
    cli.main(["report", *arguments, "--output", str(tmp_path / "r.html")])
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert re.search(r"Losses of <span class=\"docutils literal\">x</span>, a &lt; b\.", text)


def test_names_are_text_and_never_markup(results):
    text = results(note="<script>alert(1)</script>").report().read_text(encoding="utf-8")
    assert "<script>alert" not in text and "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "test1 (<made>" not in text


def test_the_best_mean_is_told_without_colour(results):
    text = results().report().read_text(encoding="utf-8")
    rows = re.findall(r"<th scope=\"row\"><span class=\"name\">PSNR \(dB\)</span>(.*?)</tr>", text, re.DOTALL)
    assert rows
    for row in rows:
        cells = re.findall(r"<td.*?</td>", row, re.DOTALL)
        assert [("★" in cell and "best: " in cell) for cell in cells] == [False, False, True]


def test_further_training_sets_have_tables_of_their_own(results):
    text = (
        results(cases=("a", "b"), training_sets=("without-a", "without-b"), protocols=("no_reference",))
        .report()
        .read_text(encoding="utf-8")
    )
    assert re.findall(r'data-training-set="([\w-]+)"( hidden)?', text)[:2] == [
        ("without-a", ""),
        ("without-b", " hidden"),
    ]


def test_more_comparisons_and_figures_than_fit_are_named(results):
    figures = tuple(f"patches_train{n}_clinical" for n in range(7))
    text = results(cases=tuple(f"c{n}" for n in range(8)), figures=figures).report().read_text(encoding="utf-8")
    assert "2 more comparisons are not in the viewer" in text
    assert "3 more patches figures are not in this file" in text


def test_a_page_too_large_to_be_mailed_is_told(results, monkeypatch, caplog):
    monkeypatch.setattr("microsr.report.report.LARGE", 1e6)
    results().report()
    assert "report.html is larger than 1 MB: too large for some mail servers" in caplog.text


def test_large_images_stay_within_the_budget(results, monkeypatch):
    monkeypatch.setattr("microsr.report.viewer.MOST_PIXELS", 4 * 16 * 16 * 64)
    monkeypatch.setattr("microsr.report.viewer.make_views.__defaults__", (4 * 16 * 16 * 64,))
    text = results().report().read_text(encoding="utf-8")
    views = json.loads(re.search(r'<script id="views" type="application/json">(.*?)</script>', text)[1])
    assert {layer["rows"] for layer in views[0]["layers"]} == {16, 128}
    assert "a part of what the figure shows" in views[0]["where"]


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (lambda r: (r.folder / "figures/losses.png").write_text("no"), "losses.png: is no picture"),
        (lambda r: (r.folder / "tables/summary.csv").write_text("a,b\n1,2\n"), "summary.csv has no column protocol"),
        (
            lambda r: (r.folder / "figures/comparison_test1.run.json").write_text("{}"),
            "is no record of a comparison figure",
        ),
        (lambda r: (r.folder / "tables/summary.run.json").unlink(), "summary.csv: has no record"),
    ],
)
def test_what_cannot_be_read_is_one_line(results, tmp_path, capsys, break_it, said):
    made: Results = results()
    arguments = made.arguments()
    break_it(made)
    with pytest.raises(SystemExit) as stopped:
        cli.main(["report", *arguments, "--output", str(tmp_path / "r.html")])
    assert stopped.value.code == 1 and not (tmp_path / "r.html").exists()
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert said in line and "unexpected" not in line


def test_a_view_without_a_clinical_ct_is_refused(results, tmp_path):
    from microsr.report.viewer import read_source

    with pytest.raises(UserError, match="clinical=PATH and a method/NAME=PATH must follow"):
        read_source(["figures/comparison.run.json", "method/proposed=a"])
    with pytest.raises(UserError, match="'proposed=a' must be clinical=PATH"):
        read_source(["figures/comparison.run.json", "clinical=a", "proposed=a"])
