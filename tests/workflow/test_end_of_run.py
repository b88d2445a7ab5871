"""What a person reads at the very end of a run: where things are and what was left out, or why it failed and how to go
on.
"""

import re
import shutil
from dataclasses import replace

import pytest

pytestmark = pytest.mark.workflow
SMOKE = ["--configfile", "experiments/smoke.yaml"]
FIGURE = "results/smoke/figures/losses.png"
BEGINNING = "Experiment smoke is finished; this run took "
GOES_ON = "What is finished stays; the same command goes on from there."


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory):
    """The finished experiment, of which a figure is missing."""
    folder = tmp_path_factory.mktemp("ending") / "clone"
    shutil.copytree(finished.folder, folder, symlinks=True)
    (folder / FIGURE).unlink()
    return replace(finished, folder=folder)


def test_what_is_no_run_of_the_experiment_says_nothing_of_it(run):
    assert BEGINNING not in run.run("-n", *SMOKE)
    assert BEGINNING not in run.run(FIGURE, *SMOKE) and (run.folder / FIGURE).exists()
    (run.folder / FIGURE).unlink()
    assert BEGINNING not in run.run(*SMOKE, "--until", "draw_losses") and (run.folder / FIGURE).exists()


@pytest.mark.parametrize(("target", "report"), [([], True), (["figures"], False)])
def test_the_end_of_a_run_says_where_things_are_and_what_was_left_out(target, report, run):
    (run.folder / FIGURE).unlink(missing_ok=True)
    (run.folder / "results/smoke/report.html").touch()
    (run.folder / "more.yaml").write_text("methods: {dropped: null}\n", encoding="utf-8")
    said = run.run(*target, *SMOKE, "more.yaml").splitlines()
    begin = next(n for n, line in enumerate(said) if line.startswith(BEGINNING))
    assert re.fullmatch(rf"{BEGINNING}\d+ (s|min)\. In results/smoke:", said[begin])
    end = said.index("Left out:")
    places = dict(line.split() for line in said[begin + 1 : end])
    assert places.pop("report", None) == ("report.html" if report else None)
    assert places == {
        "comparison": "figures/comparison.png", "figures": "figures/", "metrics": "tables/summary.csv",
        "models": "models/", "volumes": "superresolved/",
    }  # fmt: skip
    assert all((run.folder / "results/smoke" / place).exists() for place in places.values())
    reasons = [line for line in said[end + 1 :] if line.startswith("  ")]
    assert reasons == [
        "  method dropped: null in the configuration",
        "  validation of the metrics: not asked for (evaluate.validate_metrics)",
        "  slices: only [1] are super-resolved (superresolve.slices)",
        "  95 % intervals: they need 3 trainings of each model, train.repeats is 1",
        "  figure efficiency: all trained methods have networks of one family, efficient",
    ]
    assert GOES_ON not in said
    assert BEGINNING not in run.run(*target, *SMOKE), "there was nothing to do"


def test_a_failed_run_says_why_and_that_the_same_command_goes_on(run):
    history = run.folder / "results/smoke/models/proposed/pooled/history.csv"
    sound = history.read_bytes()
    (run.folder / FIGURE).unlink(missing_ok=True)
    history.write_text("broken\n")
    done = run.snakemake("--cores", "2", *SMOKE)
    assert done.returncode == 1 and BEGINNING not in done.stdout
    said = done.stdout.splitlines()
    end = said.index(GOES_ON)
    assert said[end - 1].startswith("Failed: ") and any("history.csv" in line for line in said[end - 3 : end]), said[
        -9:
    ]
    history.write_bytes(sound)
    assert BEGINNING in run.run(*SMOKE)


def test_steps_know_that_they_share_the_terminal(run):
    with (run.folder / "Snakefile").open("a") as snakefile:
        snakefile.write("\n\nrule show:\n    output: 'environment.txt'\n    shell: 'env > {output}'\n")
    assert BEGINNING not in run.run("environment.txt", *SMOKE)
    assert "MICROSR_SHARED_TERMINAL=1\n" in (run.folder / "environment.txt").read_text(encoding="utf-8")
