"""Messages about the configuration and the case sheet: what the workflow says before any job."""

import pytest
import yaml
from messages import ROOT
from snakemake.utils import update_config

from microsr.config import Cases, load
from microsr.config.sheet import read_sheet
from microsr.core.errors import UserError


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("volumes: {micro: {calibration: {air_hu: 100, tissue_hu: 50}}}", "air_hu must be below tissue_hu"),
        ("superresolve: {slices: 188}", 'slices must be "all", a list, or a range in quotation marks, as "3:8"'),
        ("superresolve: {slices: [1, 2, 5]}", "slices must be evenly spaced, as [3, 5, 7]"),
        ("evaluate: {kernel_pair: [sharp]}", "kernel_pair must name two files, [sharp, soft], or none"),
        (
            "evaluate: {kernel_pair: [sharp, soft]}",
            "kernel_pair is read by the validation of the simulated scanner only",
        ),
        ("evaluate: {further_protocols: [downsampled, downsampled]}", "further_protocols lists one twice"),
        ("evaluate: {further_protocols: [truth]}", "Input should be 'distribution', 'downsampled' or 'repeatability'"),
        (
            "scanner: {noise_hu: 0}\nmethods: {best_guess: {kind: regression}}",
            "scanner.noise_hu is 0, but method best_guess learns from the scanner's noise",
        ),
        *(
            (f"methods: {{noise_aware: {settings}}}", f"{key} was a key of the method noise_aware, which was removed")
            for key, settings in {
                "mix_noise": "{mix_noise: true}",
                "repeat": "{losses: {repeat: 50}}",
                "forgive_px": "{losses: {forgive_px: 1}}",
            }.items()
        ),
        (
            "superresolve: {slices: [1, 2]}\nfigures: {slice: 3}",
            "figures.slice is 3, must be one of superresolve.slices",
        ),
        (
            "methods: {thick_truth: {}}",
            "thick_truth is what is known of a case, which the tables show beside the methods",
        ),
        ("pairs: {slice_sigma: [1.4, 0.7]}", "must not fall from the first value to the second"),
        ("train: {batchsize: 3}", "train.batchsize: unknown key; allowed here: "),
    ],
)
def test_a_setting_that_cannot_be_is_refused(change, said):
    whole = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    update_config(whole, yaml.safe_load(change))
    with pytest.raises(UserError) as error:
        load(whole)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("columns", "cells", "said"),
    [
        ("airways\ttruth", "none.csv\tscan", "airways: {folder}/none.csv does not exist"),
        ("labels", "scan", "labels is given but truth is empty"),
        ("thick_truth", "scan", "thick_truth is given but truth is empty"),
        ("airways", "scan", "airways is given but truth is empty"),
    ],
)
def test_a_sheet_that_names_what_cannot_be_is_refused(tmp_path, columns, cells, said):
    (tmp_path / "scan").touch()
    sheet = tmp_path / "cases.tsv"
    sheet.write_text(f"case\tsplit\tclinical\tmicro\t{columns}\na\ttest\tscan\t\t{cells}\n", encoding="utf-8")
    with pytest.raises(UserError) as error:
        read_sheet(Cases(sheet=str(sheet), data_root=str(tmp_path)))
    assert f"{sheet}, line 2: " in str(error.value)
    assert said.format(folder=tmp_path) in str(error.value)
