"""Tiny real runs: everything is made, nothing is made twice, and a training that is killed goes on."""

import json
import os
import re
import shutil
import signal
import subprocess
from dataclasses import replace

import pandas as pd
import pytest
from patience import limit, wait_for
from workflows import training_in

pytestmark = pytest.mark.workflow
PROTOCOLS = ("no_reference", "truth", "downsampled", "distribution", "repeatability", "uncertainty")
SMOKE = ["--configfile", "experiments/smoke.yaml"]


def test_smoke_makes_figures_tables_and_models(finished):
    results = finished.folder / "results/smoke"
    for name in (
        "comparison", "network", "losses", "domain", "patches_train1_clinical", "validation", "bronchioles",
        "hallucination", "metrics", *(f"metrics_{protocol}" for protocol in PROTOCOLS),
    ):  # fmt: skip
        for ending in ("png", "pdf"):
            assert (results / f"figures/{name}.{ending}").stat().st_size > 1000
    metrics = pd.read_csv(results / "tables/metrics.csv")
    assert list(metrics) == ["case", "method", "training_set", "seed", "protocol", "metric", "value", "unit"]
    assert set(metrics["method"]) == {
        *("proposed", "bicubic", "cyclegan", "regression", "posterior", "posterior_mean"),
        *("truth", "thick_truth", "noise_free"),
    }
    assert set(metrics["protocol"]) == set(PROTOCOLS)
    assert {"consistency_rmse", "spectrum_distance", "checkerboard", "psnr", "ssim"} <= set(metrics["metric"])
    history = pd.read_csv(results / "models/proposed/pooled/history.csv")
    assert {"downsample_loss", "upsample_loss", "clinical_ssim_loss", "micro_ssim_loss"} <= set(history)


def test_the_experiment_is_recorded_and_can_be_run_from_its_record(finished):
    jobs = finished.plan("--configfile", "results/smoke/config.yaml")
    assert not jobs, jobs
    cases = pd.read_csv(finished.folder / "results/smoke/cases.tsv", sep="\t")
    assert list(cases["case"]) == ["train1", "train2", "test1"]


def test_a_second_run_has_nothing_to_do(finished):
    assert "Nothing to be done" in finished.run(*SMOKE)


def test_the_report_of_snakemake_is_one_html_file(finished, tmp_path):
    report = tmp_path / "snakemake_report.html"
    finished.run("--report", str(report), *SMOKE)
    text = report.read_text(encoding="utf-8")
    assert "comparison" in text and "domain check" in text


def test_a_volume_made_by_several_jobs_is_that_of_one_in_every_format_asked_for(finished, tmp_path):
    made = {}
    for parts in (1, 2):
        folder = tmp_path / str(parts)
        shutil.copytree(finished.folder, folder, symlinks=True)
        copy = replace(finished, folder=folder)
        result = "results/smoke/superresolved/proposed/pooled/test1"
        settings = ["superresolve={slices: '0:3', formats: [nifti.gz, dicom]}", f"compute={{parts: {parts}}}"]
        copy.run(f"{result}.nii.gz", f"{result}_dicom", *SMOKE, "--config", *settings)
        made[parts] = {
            str(path.relative_to(folder)): path.read_bytes()
            for path in (folder / result).parent.rglob("*")
            if (path.is_file() and path.suffix not in (".json",)) or path.name == "zarr.json"
        }
        assert len(list((folder / f"{result}_dicom").glob("*.dcm"))) == 3
        assert not list((folder / result).parent.glob("*part*")), "parts are temporary"
    assert made[1] == made[2]


@pytest.fixture
def edited(finished):
    """The finished workflow; what a test edits in it is put back."""
    parts = ("src/microsr/**/*.py", "rules/*.smk", "envs/*.yaml", "profiles/*/*.yaml", "report/*.rst")
    before = {path: path.read_bytes() for part in parts for path in finished.folder.glob(part)}
    yield finished
    for path, content in before.items():
        path.write_bytes(content)


def test_what_decides_no_result_re_runs_nothing(edited):
    """Comments and docstrings, messages, resources, threads, profiles, environments, captions: all at once."""
    for source in (edited.folder / "src/microsr").rglob("*.py"):
        text = source.read_text(encoding="utf-8")
        source.write_text(f"{text.replace('    Raises', '    Can raise')}\n\n# A remark.\n", encoding="utf-8")
    with (edited.folder / "src/microsr/core/progress.py").open("a") as source:
        source.write("\nlogger.debug('loaded')\n")
    changed = 0
    for rules in (edited.folder / "rules").glob("*.smk"):
        text, number = re.subn(
            r"(?m)^( +)(mem_mb|runtime)=.*,$", r"\1\2=777,  # enough", rules.read_text(encoding="utf-8")
        )
        text, more = re.subn(r"(?m)^( +)threads: .*$", r"\1threads: 3", text)
        rules.write_text(re.sub(r'(?m)^    """(?=\w)', '    """Now: ', text) + "\n# A remark.\n", encoding="utf-8")
        changed += number + more
    assert changed > 30
    for environment in (edited.folder / "envs").glob("*.yaml"):
        environment.write_text(environment.read_text(encoding="utf-8").replace("==", ">="), encoding="utf-8")
    with (edited.folder / "profiles/default/config.yaml").open("a") as profile:
        profile.write("default-resources:\n  mem_mb: 1234\n  runtime: 9\nset-threads:\n  train: 2\n")
    for caption in (edited.folder / "report").glob("*.rst"):
        caption.write_text("Another caption.\n", encoding="utf-8")
    assert not edited.plan(*SMOKE)


def test_a_folder_that_was_moved_re_runs_nothing(finished, tmp_path):
    """As by `mv` or `cp -a`, which keep the times of the files."""
    shutil.copytree(finished.folder, tmp_path / "moved", symlinks=True)
    assert "Nothing to be done" in replace(finished, folder=tmp_path / "moved").run(*SMOKE)


@pytest.mark.parametrize(
    ("module", "again", "kept"),
    [
        ("src/microsr/figures/charts/losses.py", {"draw_losses"}, {"train", "draw_comparison"}),
        ("src/microsr/figures/figures.py", {"draw_comparison", "draw_losses"}, {"train", "evaluate_known"}),
        (
            "src/microsr/evaluation/metrics.py",
            {"evaluate_known", "collect_metrics", "draw_metrics"},
            {"train", "superresolve", "extract_patches"},
        ),
        ("src/microsr/preprocessing/checks/domain.py", {"check_domain", "draw_domain"}, {"train", "extract_patches"}),
        (
            "src/microsr/evaluation/protocols/repeatability.py",
            {"evaluate_repeatability", "collect_metrics"},
            {"evaluate_known", "evaluate_distribution"},
        ),
        (
            "src/microsr/training/losses.py",
            {"train", "superresolve", "evaluate_known"},
            {"extract_patches", "check_domain", "import_micro"},
        ),
        ("src/microsr/simulation/simulate.py", {"simulate_test_case", "import_clinical", "train"}, set()),
    ],
)
def test_an_edit_of_code_re_runs_what_it_decides(edited, module, again, kept):
    with (edited.folder / module).open("a") as source:
        source.write("\nEDITED = True\n")
    jobs = edited.plan(*SMOKE)
    assert again <= set(jobs)
    assert not kept & set(jobs)


def test_a_killed_training_goes_on_where_it_was(finished, tmp_path):
    """`kill -9` of a training: Snakemake starts it again by itself, and it does not begin anew."""
    workflow = replace(finished, folder=tmp_path / "clone")  # which finds its patches made
    shutil.copytree(finished.folder, workflow.folder, symlinks=True)
    settings = ["train={epochs: 30}", "compute={checkpoint_minutes: 1.0e-9}"]
    target = "results/smoke/models/cyclegan/pooled/run.json"
    with subprocess.Popen(
        workflow.command("--cores", "2", target, *SMOKE, "--config", *settings),
        cwd=workflow.folder, env=workflow.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as snakemake:  # fmt: skip
        state = workflow.folder / "results/smoke/.state/cyclegan/pooled"
        try:
            wait_for(
                lambda: len(list(state.rglob("*.pt"))) >= 1 and training_in(workflow.folder),
                lambda: snakemake.poll() is None,
            )
            os.kill(training_in(workflow.folder), signal.SIGKILL)
            assert snakemake.wait(timeout=limit(900)) == 0
        finally:
            snakemake.terminate()
    attempts = json.loads((workflow.folder / target).read_text(encoding="utf-8"))["attempts"]
    assert len(attempts) == 2
    assert attempts[0]["start_step"] == 0 < attempts[1]["start_step"]
