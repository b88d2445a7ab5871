"""Whatever a cell or a setting is, it comes through as it is, or one line says where it does not. The same examples
every time.
"""

import argparse
import csv
import io
import shlex
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from microsr.config import (  # fmt: skip
    Calibration,
    Cases,
    ClinicalVolume,
    Compute,
    CycleGANMethod,
    Losses,
    MicroVolume,
    Patches,
    Scanner,
    Superresolve,
    Train,
    add_flags,
    flags,
    from_flags,
)
from microsr.config.sheet import read_sheet, sheet_text
from microsr.core.errors import UserError

repeatable = settings(derandomize=True, deadline=None, database=None, max_examples=60)
HEADER = ["case", "split", "clinical", "clinical_series"]


def read(content: bytes, folder: Path):
    (folder / "cases.tsv").write_bytes(content)
    return read_sheet(Cases(sheet=str(folder / "cases.tsv"), data_root=str(folder)))


def one_line(error: UserError) -> bool:
    return len(str(error).splitlines()) == 1 and "cases.tsv" in str(error)


@repeatable
@given(series=st.text(max_size=20))
def test_any_text_in_a_cell_comes_through_or_is_named_by_its_line(series):
    text = io.StringIO()
    csv.writer(text, delimiter="\t", lineterminator="\n").writerows([HEADER, ["one", "train", "a.nii", series]])
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "a.nii").touch()
        try:
            content = text.getvalue().encode()
        except UnicodeEncodeError:
            return  # no text that a file holds
        try:
            cases = read(content, Path(name))
        except UserError as error:
            assert one_line(error) and "line " in str(error)
            return
        assert (cases[0].clinical.series or "") == series.strip()
        assert read(sheet_text(cases).encode(), Path(name)) == cases


@repeatable
@given(
    content=st.binary(max_size=80)
    | st.text(max_size=80).map(lambda t: ("case\tsplit\tclinical\n" + t).encode("utf-8", "ignore"))
)
def test_any_file_is_a_sheet_or_is_refused_in_one_line(content):
    with tempfile.TemporaryDirectory() as name:
        try:
            read(content, Path(name))
        except UserError as error:
            assert one_line(error)


@repeatable
@given(
    name=st.text(
        st.characters(exclude_characters="/", exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=40
    )
)
def test_a_file_of_any_name_is_found(name):
    text = io.StringIO()
    csv.writer(text, delimiter="\t", lineterminator="\n").writerows([HEADER[:3], ["one", "train", name]])
    with tempfile.TemporaryDirectory() as folder:
        if name.strip() != name or name in (".", "..") or len(name.encode()) > 200:
            return
        (Path(folder) / name).touch()
        (case,) = read(text.getvalue().encode(), Path(folder))
        assert Path(case.clinical.path) == Path(folder) / name


numbers = st.floats(allow_nan=False, allow_infinity=False)
positive = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
fraction, count = st.floats(0, 1), st.integers(1, 10**9)
SECTIONS = {
    Calibration: {
        "method": st.sampled_from(["two_point", "percentile", "none"]), "air_grey": st.none() | numbers,
        "tissue_grey": st.none() | numbers, "air_hu": numbers, "tissue_hu": numbers, "mean_hu": st.none() | numbers,
    },
    ClinicalVolume: {
        "lung_below_hu": numbers, "closing_mm": positive, "mask": st.sampled_from(["lung", "file", "none"]),
        "organ": st.sampled_from([None, "lung", "other"]), "mask_range": st.none() | st.just((-0.5, 1e5)),
    },
    MicroVolume: {
        "sampling": st.sampled_from(["matched", "native"]), "matched_spacing_mm": st.none() | positive,
        "area_average": count, "mask": st.sampled_from(["specimen", "file", "none"]), "fill_mm": positive,
    },
    Patches: {"per_case": count, "inside": fraction},
    Train: {
        "epochs": count, "learning_rate": positive, "adam_betas": st.tuples(fraction, fraction),
        "augment": st.booleans(), "spectral_norm": st.none() | st.booleans(),
        "network": st.sampled_from(["efficient", "resnet", "compact"]),
    },
    Losses: {"cycle": positive, "pixel_norm": st.sampled_from(["mse", "l1"])},
    CycleGANMethod: {"mix_fraction": st.floats(0, 1, exclude_max=True)},
    Scanner: {"kernel": st.sampled_from(["B30", "D45", "lung"]), "noise_hu": positive, "pixel_mm": positive},
    Compute: {
        "tile": st.just("auto") | st.integers(16, 4096), "checkpoint_minutes": positive, "compile": st.booleans(),
    },
    Superresolve: {
        "slices": st.sampled_from(["all", "3:8", ":", "1:"]) | st.lists(st.integers(0, 999), min_size=1, max_size=2),
    },
}  # fmt: skip


@pytest.mark.parametrize("model", SECTIONS)
@repeatable
@given(data=st.data())
def test_any_settings_survive_the_command_line(model, data):
    try:
        section = model(**data.draw(st.fixed_dictionaries({}, optional=SECTIONS[model])))
    except ValidationError:
        return  # two that do not go together
    parser = argparse.ArgumentParser()
    without = ["formats"] * (model is Superresolve)
    add_flags(parser, model, without)
    assert from_flags(parser.parse_args(shlex.split(flags(section, without))), model) == section


def test_no_yaml_on_the_command_line_is_named_in_one_line():
    parser = argparse.ArgumentParser()
    add_flags(parser, Train)
    for text in ("{", "[1", "2001-99-99", "a: b: c", "\t"):
        with pytest.raises(UserError, match="command line: epochs: ") as error:
            from_flags(parser.parse_args(["--epochs", text]), Train)
        assert "\n" not in str(error.value)
