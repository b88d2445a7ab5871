"""Tables for a paper: what is in the .csv stands in LaTeX and Markdown, escaped, with units, directions and the best
mean marked.
"""

import json
import re
import shutil
import subprocess

import numpy as np
import pandas as pd
import pytest

from microsr import cli
from microsr.core.errors import UserError
from microsr.evaluation.summary import summarise
from microsr.evaluation.tables import COLUMNS
from microsr.figures.charts.volumes import make_volumes
from microsr.figures.typeset import (
    escape_latex,
    latex,
    markdown,
    read_volumes,
    typeset_metrics,
    typeset_summary,
    typeset_volumes,
)

VOLUMES = """case,modality,format,columns_px,rows_px,slices,pixel_x_mm,pixel_y_mm,slice_spacing_mm,\
slice_thickness_mm,spacing_from
a_b & c%d,clinical,DICOM,512,512,554,0.625,0.625,0.6,0.6,file
007,micro,NIfTI,1024,1000,545,0.034,0.0341,0.034,,file
"""


@pytest.fixture
def volumes(tmp_path):
    (tmp_path / "volumes.csv").write_text(VOLUMES)
    return tmp_path / "volumes.csv"


@pytest.fixture
def summary(tmp_path):
    """Two methods, three trainings: PSNR 10 to 12 and 20 to 22 dB, fit to the input, and the shift of the mean, -3 and
    4 HU.
    """
    rows = [
        ("a", method, "pooled", str(seed), protocol, metric, value + seed * step, unit)
        for method, psnr, shift in (("proposed", 9.0, -3.0), ("my_method", 19.0, 4.0))
        for seed in (1, 2, 3)
        for protocol, metric, value, step, unit in (
            ("truth", "psnr", psnr, 1.0, "dB"),
            ("no_reference", "consistency_rmse", 1234.5, 0.0, "HU"),
            ("no_reference", "mean_shift", shift, 0.0, "HU"),
        )
    ]
    summarise(pd.DataFrame(rows, columns=COLUMNS)).to_csv(tmp_path / "summary.csv", index=False)
    return tmp_path / "summary.csv"


def cells(line):
    """The cells of a line of LaTeX."""
    return [cell.strip() for cell in re.split(r"(?<!\\)&", line.removesuffix(r"\\"))]


def check_structure(tex):
    """Braces and environments are closed, and nothing special is left that no command asked for."""
    bare = re.sub(r"^%.*$", "", tex, flags=re.MULTILINE)
    without = re.sub(r"\\\\|\\[{}]", "", bare)
    depth = np.cumsum([{"{": 1, "}": -1}.get(sign, 0) for sign in without])
    assert depth.min() == 0 and depth[-1] == 0
    assert bare.count(r"\begin{tabular}") == bare.count(r"\end{tabular}") > 0
    assert len(re.findall(r"(?<!\\)\$", bare)) % 2 == 0
    assert not re.search(r"(?<!\\)[%#_]", bare) and bare.isascii()


def test_table_1_has_pixels_slices_and_sizes_in_micrometres(volumes):
    table = read_volumes(volumes)
    assert list(table.iloc[0]) == ["a_b & c%d", "clinical CT", "512 × 512", "554", "625", "600", "600"]
    assert list(table.iloc[1]) == ["007", "uCT", "1024 × 1000", "545", "34 × 34.1", "34", "–"]
    assert [name for name in table if "size" in name or "Slice " in name] == [
        "Pixel size (µm)", "Slice spacing (µm)", "Slice thickness (µm)",
    ]  # fmt: skip


def test_cases_that_are_numbers_keep_their_zeros(volumes):
    volumes.write_text(VOLUMES.replace("a_b & c%d", "012"))
    assert list(read_volumes(volumes)["Case"]) == ["012", "007"]


def test_table_1_in_latex_is_escaped_between_rules(volumes, tmp_path):
    typeset_volumes(volumes, tmp_path / "volumes")
    tex = (tmp_path / "volumes.tex").read_text(encoding="utf-8")
    check_structure(tex)
    lines = tex.splitlines()
    assert lines[0] == r"\begin{tabular}{llrrrrr}" and lines[-1] == r"\end{tabular}"
    assert [line for line in lines if "rule" in line] == [r"\toprule", r"\midrule", r"\bottomrule"]
    assert cells(lines[2])[4] == r"Pixel size (\textmu{}m)"
    assert cells(lines[4])[:3] == [r"a\_b \& c\%d", "clinical CT", r"512 $\times$ 512"]
    assert {len(cells(line)) for line in lines if line.endswith(r"\\")} == {7}


def test_table_1_in_markdown_keeps_its_columns(volumes, tmp_path):
    volumes.write_text(VOLUMES.replace("007", "x|y*z*"))
    typeset_volumes(volumes, tmp_path / "volumes")
    lines = (tmp_path / "volumes.md").read_text(encoding="utf-8").splitlines()
    split = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert {len(row) for row in split} == {7} and len(lines) == 4
    assert split[2][0] == r"a\_b & c%d" and split[3][0] == r"x\|y\*z\*"
    assert split[1][0].startswith(":-") and split[1][4].endswith("-:")


def test_the_best_mean_is_bold_with_its_interval_unit_and_direction(summary, tmp_path):
    typeset_metrics(summary, tmp_path / "metrics")
    tex = (tmp_path / "metrics.tex").read_text(encoding="utf-8")
    check_structure(tex)
    half = 4.302653 / np.sqrt(3)
    (row,) = (line for line in tex.splitlines() if line.startswith("PSNR"))
    assert row.startswith(r"PSNR (dB) $\uparrow$ & \begin{tabular}")
    assert f"11.0\\\\{{\\footnotesize {11 - half:.2f} to {11 + half:.1f}}}" in row
    assert r"\textbf{21.0}" in row and row.count(r"\textbf") == 1
    assert r"Metric & Proposed & my\_method \\" in tex
    text = (tmp_path / "metrics.md").read_text(encoding="utf-8")
    (row,) = (line for line in text.splitlines() if line.startswith("| PSNR"))
    assert [cell.strip() for cell in row.split("|")[1:4]] == [
        "PSNR (dB) ↑", f"11.0 ({11 - half:.2f} to {11 + half:.1f})", f"**21.0** ({21 - half:.1f} to {21 + half:.1f})",
    ]  # fmt: skip
    assert "| Metric" in text and r"my\_method" in text and "3 trainings, 1 case" in text


def test_a_table_of_validation_cases_says_so(summary, tmp_path):
    pd.read_csv(summary).assign(split="validation").to_csv(summary, index=False)
    typeset_metrics(summary, tmp_path / "metrics")
    for ending in ("tex", "md"):
        assert "3 trainings, 1 validation case" in (tmp_path / f"metrics.{ending}").read_text(encoding="utf-8")


def test_the_summary_has_every_protocol_and_true_minus_signs(summary, tmp_path):
    typeset_summary(summary, tmp_path / "summary")
    tex, text = ((tmp_path / f"summary.{ending}").read_text(encoding="utf-8") for ending in ("tex", "md"))
    check_structure(tex)
    assert re.findall("^% (.*):", tex, re.MULTILINE) == re.findall("^### (.*):", text, re.MULTILINE)
    assert set(re.findall("^### (.*):", text, re.MULTILINE)) == {"Against the truth", "Without a reference"}
    (row,) = (line for line in tex.splitlines() if line.startswith("Shift of the mean"))
    assert r"\textbf{$-$3.00}" in row and r"\textbf{4" not in row, "nearer to 0 is better"
    assert "**−3.00**" in text
    (row,) = (line for line in tex.splitlines() if line.startswith("Fit to the input"))
    assert "textbf" not in row and "1234" in row, "its best value is another one than the least"


def test_special_characters_are_escaped_once():
    assert escape_latex(r"\a{b}_#$~^<>") == (
        r"\textbackslash{}a\{b\}\_\#\$\textasciitilde{}\textasciicircum{}\textless{}\textgreater{}"
    )
    assert escape_latex("−5 × 3 µm² ↑") == r"$-$5 $\times$ 3 \textmu{}m$^2$ $\uparrow$"
    table = pd.DataFrame({"a_b": ["c_d"]})
    assert r"a\_b" in latex(table, "l") and r"a\_b" in markdown(table, ("left",))
    assert list(table) == ["a_b"], "the table that was given stays as it was"


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="needs LaTeX")
def test_latex_takes_the_tables_and_every_character(volumes, summary, tmp_path):
    typeset_volumes(volumes, tmp_path / "v")
    typeset_summary(summary, tmp_path / "s")
    (tmp_path / "e.tex").write_text(escape_latex("a_b&c%d#e$f~g^h\\i{j}<k>\"l'|"))
    text = r"\documentclass{article} \usepackage{booktabs, textcomp} \begin{document}"
    (tmp_path / "d.tex").write_text(text + r"\input{v.tex} \input{s.tex} \input{e.tex} \end{document}")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "d.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-2000:]


def test_the_same_table_has_the_same_bytes(volumes, tmp_path):
    for name in ("a", "b"):
        typeset_volumes(volumes, tmp_path / name)
        make_volumes(volumes, tmp_path / name)
    for ending in ("tex", "md", "png", "pdf"):
        assert (tmp_path / f"a.{ending}").read_bytes() == (tmp_path / f"b.{ending}").read_bytes()


def test_the_commands_write_and_say_how(volumes, summary, tmp_path):
    cli.main(["figures", "volumes", "--table", str(volumes), "--output", str(tmp_path / "v")])
    assert json.loads((tmp_path / "v.run.json").read_text(encoding="utf-8"))["volumes"] == 2
    for kind, table in (("volumes", volumes), ("metrics", summary), ("summary", summary)):
        cli.main(["figures", "typeset", "--kind", kind, "--table", str(table), "--output", str(tmp_path / f"t_{kind}")])
        for ending in ("tex", "md"):
            assert (tmp_path / f"t_{kind}.{ending}").stat().st_size > 100
            record = json.loads((tmp_path / f"t_{kind}.{ending}.run.json").read_text(encoding="utf-8"))
            assert record["settings"] == {"kind": kind} and len(record["inputs"]) == 1


def test_other_tables_are_refused(volumes, tmp_path):
    (tmp_path / "odd.csv").write_text("case,modality\na,micro\n")
    with pytest.raises(UserError, match=r"odd\.csv has no column columns_px; make it with `microsr volumes table`"):
        typeset_volumes(tmp_path / "odd.csv", tmp_path / "out")
    with pytest.raises(UserError, match=r"volumes\.csv has no column protocol"):
        typeset_summary(volumes, tmp_path / "out")
    assert not (tmp_path / "out.tex").exists()
