"""What is planned: dry runs of every experiment, and which cases each model is trained and tested on."""

import csv
import re
from pathlib import Path

import pytest
import yaml

from microsr.config import Experiment
from microsr.config.sheet import MODALITIES

ROOT = Path(__file__).parent.parent.parent
EXPERIMENTS = sorted(path.name for path in (ROOT / "experiments").glob("*.yaml"))
TRAINED = ("proposed", "cyclegan")
OVERLAYS = [
    name
    for name in EXPERIMENTS
    if "sheet" in yaml.safe_load((ROOT / "experiments" / name).read_text(encoding="utf-8")).get("cases", {})
]


def stand_ins(workflow, experiment: str, folder: Path) -> list[str]:
    """Empty files and folders in the places that an experiment's sheet names, and the settings that lead there; of
    simulated lungs the setting for one test case, as the further ones are planned as it is, in minutes.
    """
    cases = yaml.safe_load((workflow.folder / "experiments" / experiment).read_text(encoding="utf-8")).get("cases")
    if not cases:
        return ["simulate={test_cases: 1}"]
    with (workflow.folder / cases["sheet"]).open(encoding="utf-8") as sheet:
        for row in csv.DictReader(sheet, delimiter="\t"):
            for path in (folder / row[m] for m in MODALITIES if row.get(m)):
                path.mkdir(parents=True, exist_ok=True)
    return [f"cases={{data_root: {folder}}}"]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_every_experiment_plans_the_comparison_figure(planned, experiment, tmp_path):
    data = stand_ins(planned, experiment, tmp_path)
    jobs = planned.plan("--configfile", f"experiments/{experiment}", "--config", "train={repeats: 1}", *data)
    assert jobs["collect_metrics"] == jobs["summarise_metrics"] == 1 and jobs["check_domain"] >= 1
    assert jobs["draw_comparison"] >= 1 and jobs["train"] >= 1


def test_the_default_experiment_is_the_demo(planned):
    done = planned.snakemake("-n")
    assert "results/demo/figures/comparison.png" in done.stdout
    assert not (planned.folder / "results").exists()


def test_the_demo_pays_for_the_paper_s_figure_only(planned):
    """Lungs are simulated, scans super-resolved and protocols evaluated only where something that is asked for shows
    them.
    """
    jobs = planned.plan()
    assert jobs["train"] == 2 and jobs["superresolve"] == jobs["evaluate_known"] == 6, (
        "three methods, and the truth, the thick truth and the noise-free scan beside them"
    )
    assert jobs["simulate_training_case"] + jobs["simulate_test_case"] == 4, "no lung for features or validation"
    further = (
        "evaluate_distribution",
        "evaluate_repeatability",
        "evaluate_downsampled",
        "learn_features",
        "import_repeat",
    )
    assert not any(jobs[rule] for rule in (*further, "validate_simulation", "draw_validation"))


@pytest.mark.parametrize("protocols", ["[]", "[downsampled]", "[distribution]"])
def test_own_data_pay_for_a_simulated_lung_only_where_a_protocol_shows_it(planned, tmp_path, protocols):
    for name in ("one", "two", "micro"):
        (tmp_path / name).mkdir()
    sheet = tmp_path / "own.tsv"
    sheet.write_text("case\tsplit\tclinical\tmicro\na\ttrain\tone\tmicro\nb\ttest\ttwo\t\n", encoding="utf-8")
    own = [f"cases={{sheet: {sheet}, data_root: {tmp_path}}}", f"evaluate={{further_protocols: {protocols}}}"]
    jobs = planned.plan("--config", "experiment=own", *own)
    simulated = [rule for rule in jobs if "simulate" in rule and jobs[rule]]
    assert bool(simulated) == (protocols == "[distribution]"), jobs
    assert bool(jobs["learn_features"]) == (protocols == "[distribution]")


def test_figures_alone_can_be_asked_for(planned):
    everything, figures = planned.plan(), planned.plan("figures")
    assert set(everything) - set(figures) == {"all", "write_report"}
    assert set(figures) - set(everything) == {"figures"}


def test_paper_without_data_says_what_is_missing(planned):
    line = planned.fails("-n", "--configfile", "experiments/paper.yaml")
    assert re.match(r"error: experiments/paper.tsv, line 2: clinical: data/case1/clinical does not exist", line)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_setting_of_the_demo_leaks_into_an_experiment_on_volumes(overlay):
    """What config.yaml sets away from its default, an experiment with a sheet must state itself."""
    demo = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    stated = yaml.safe_load((ROOT / "experiments" / overlay).read_text(encoding="utf-8"))
    defaults = Experiment(experiment="defaults").model_dump(mode="json")
    for section in ("simulate", "compute"):
        del demo[section]

    def leaks(demo, stated, default, where=""):
        for key, value in demo.items():
            if isinstance(value, dict):
                if stated.get(key, {}) is not None:
                    yield from leaks(value, stated.get(key, {}), default.get(key, {}), f"{where}{key}.")
            elif key not in stated and value != default.get(key):
                yield f"{where}{key}"

    assert list(leaks(demo, stated, defaults)) == []


def shell_commands(workflow, step: str, *arguments: str) -> list[str]:
    """Command lines in which `microsr <step>` runs, in a dry run."""
    text = workflow.snakemake("-n", "-p", *arguments).stdout
    return re.findall(rf"^Shell command: (.*\bmicrosr {step}\b.*)$", text, re.MULTILINE)


def test_quality_against_cost_is_drawn_where_networks_differ(planned):
    (drawn,) = shell_commands(planned, "figures efficiency", "--configfile", "experiments/networks.yaml")
    runs = re.findall(r"(\w+)/pooled=results/networks/models/\w+/pooled\S*/run\.json", drawn)
    assert sorted(runs) == sorted(["resnet", "efficient", "compact"] * 3), "bicubic costs no training"
    assert "--costs results/networks/tables/efficiency.csv" in drawn
    assert "draw_efficiency" not in planned.plan("--configfile", "experiments/ablation.yaml")


@pytest.mark.parametrize(
    ("experiment", "method", "changed"),
    [
        ("networks", "resnet",
         "--network resnet --candidates 1 --epochs 1 --patches_per_case 270 --batch_size 4 --learning_rate 0.0002 "),
        ("networks", "compact",
         "--network compact --candidates 1 --epochs 1 --patches_per_case 270 --batch_size 4 --learning_rate 0.0004 "),
        ("options", "float32", "--precision float32 "),
        ("options", "ema", "--ema_decay 0.99 --gradient_penalty 0.0 "),
        ("options", "no_spectral_norm", "--gradient_penalty 0.0 --spectral_norm false "),
    ],
)  # fmt: skip
def test_a_method_trains_with_its_own_changes(planned, experiment, method, changed):
    target = f"results/{experiment}/models/{method}/pooled/generator.pt"
    (command,) = shell_commands(planned, "train", target, "--configfile", f"experiments/{experiment}.yaml")
    assert changed in command


MODEL = "results/demo/models/proposed/pooled/generator.pt"
SUPERRESOLVED = "results/demo/superresolved/bicubic/none/test1.ome.zarr"


@pytest.mark.parametrize(
    ("compute", "threads", "launched", "resources"),
    [
        ("devices: 1", 1, r"", {"gpu": 1}),
        ("devices: 2, threads: 2", 2, r"torchrun --nproc_per_node 2 .*--standalone --no_python -- ", {"gpu": 2}),
        (
            "devices: 4, nodes: 2", 1,
            r"srun --nodes 2 --ntasks-per-node=1 .* torchrun --nproc_per_node 4 .*--nnodes 2 --rdzv_backend c10d"
            r" --rdzv_id \"\$SLURM_JOB_ID\" --rdzv_endpoint \"\$\(scontrol show hostnames .*\" --no_python -- ",
            {"gpu": 8, "nodes": 2, "tasks": 2, "mpi": "srun"},
        ),
    ],
)  # fmt: skip
def test_a_training_on_several_devices_is_the_same_command_under_a_launcher(
    planned, compute, threads, launched, resources
):
    several = [f"compute={{device: cuda, {compute}}}", "train={batch_size: 8}"]
    text = planned.snakemake("-n", "-p", MODEL, "--cores", "16", "--resources", "gpu=8", "--config", *several).stdout
    command = re.search(r"^Shell command: (.*microsr train .*)$", text, re.MULTILINE)[1]
    assert re.match(rf"{launched}microsr train --clinical results/demo/patches/train1/clinical\.npy ", command), command
    assert re.findall(r"--threads (\d+)", command) == [str(threads)], "of each process"
    claimed = re.search(r"^rule train:\n(?:    .*\n)*    resources: (.*)", text, re.MULTILINE)[1]
    claimed = dict(part.split("=") for part in claimed.split(", "))
    assert {name: claimed.get(name) for name in resources} == {name: str(value) for name, value in resources.items()}


def test_a_training_has_the_threads_of_the_experiment_however_many_cores_there_are(planned):
    for cores in ("1", "16"):
        settings = ["--cores", cores, "--config", "compute={threads: 3}"]
        (command,) = shell_commands(planned, "train", MODEL, *settings)
        assert re.findall(r"--threads (\d+)", command) == ["3"]
        (command,) = shell_commands(planned, "superresolve", SUPERRESOLVED, *settings)
        assert re.findall(r"--threads (\d+)", command) == [str(min(3, int(cores)))], "the result is the same"


def test_a_batch_that_cannot_be_shared_stops_before_any_job(planned):
    line = planned.fails("-n", "--config", "compute={devices: 3}")
    assert "batch_size is 4 (method proposed), must be divisible by compute.devices x nodes x accumulate" in line


def models_and_tests(workflow, *arguments: str) -> tuple[set[str], set[str]]:
    """Models to be trained and CTs to be super-resolved, as <method>/<training set>[/<case>]."""
    text = workflow.snakemake("-n", *arguments).stdout
    models = set(re.findall(r"output: results/\w+/models/(\S+)/generator\.pt", text))
    tested = set(re.findall(r"output: results/\w+/superresolved/(\S+)\.ome\.zarr", text))
    return models, tested


REFERENCES = {f"{name}/none/test1" for name in ("truth", "thick_truth", "noise_free")}
"""What a simulated case is measured beside."""


def test_pooled_trains_on_all_cases_and_tests_on_the_held_out_one(planned):
    models, tested = models_and_tests(planned)
    assert models == {f"{method}/pooled" for method in TRAINED}
    assert tested == {f"{model}/test1" for model in models | {"bicubic/none"}} | REFERENCES
    every = ["--config", "evaluate={further_protocols: [repeatability, downsampled]}"]
    scans = {"test1", "test1.repeat", "test1.downsampled"}
    draws = {f"{model}/test1.{draw}" for model in models for draw in ("redrawn", "same_draw")}
    assert models_and_tests(planned, *every) == (
        models,
        {f"{model}/{scan}" for model in models | {"bicubic/none"} for scan in scans}
        | draws | REFERENCES | {"truth/none/test1.repeat"},
    )  # fmt: skip


def test_a_repeated_training_differs_in_its_seed_only(planned):
    text = planned.snakemake("-n", "-p", "--config", "train={repeats: 3}").stdout
    commands = [c for c in re.findall(r"^Shell command: (microsr train .*)$", text, re.MULTILINE) if "/proposed/" in c]
    assert len(commands) == 3

    def without_names(command):
        return re.sub(r"pooled(\.seed\d+)?", "pooled", re.sub(r"--seed \d+", "--seed", command))

    assert sorted(re.search(r"--seed (\d+)", command)[1] for command in commands) == ["1", "2", "3"]
    assert len(set(map(without_names, commands))) == 1
    evaluated = re.findall(r"microsr evaluate metrics .*--method proposed .*--training_set (\S+) --seed (\d+)", text)
    assert sorted(evaluated) == [("pooled", "1"), ("pooled", "2"), ("pooled", "3")]


def test_only_a_method_that_learns_from_noise_depends_on_the_scanner(planned):
    text = planned.snakemake(
        "-n", "-p", "--configfile", "experiments/smoke.yaml", "--config", "train={start_steps: 0}"
    ).stdout
    told = re.findall(r"^Shell command: microsr train .*models/(\w+)/.*--noise_hu", text, re.MULTILINE)
    assert sorted(told) == ["posterior", "regression"]


def test_per_case_trains_one_model_a_case(planned):
    models, tested = models_and_tests(planned, "--config", "protocols=[per_case]", "simulate={training_cases: 2}")
    assert models == {f"{method}/case-train{n}" for method in TRAINED for n in (1, 2)}
    assert tested == {f"{model}/test1" for model in models} | {"bicubic/none/test1"} | REFERENCES


def test_leave_one_out_tests_each_model_on_the_case_it_has_not_seen(planned):
    arguments = ["--config", "protocols=[leave_one_out]", "simulate={training_cases: 2}"]
    _, tested = models_and_tests(planned, *arguments)
    assert {t for t in tested if t.startswith(("proposed", "bicubic")) and "." not in t} == {
        "proposed/without-train1/train1", "proposed/without-train2/train2",
        "bicubic/none/train1", "bicubic/none/train2",
    }  # fmt: skip
    text = planned.snakemake("-n", "results/demo/models/proposed/without-train1/generator.pt", *arguments).stdout
    inputs = re.search(r"rule train:\n\s+input: (.*)", text).group(1)
    assert "results/demo/patches/train2/clinical.npy" in inputs
    assert "results/demo/patches/train1/" not in inputs


def test_the_domain_check_comes_before_training(planned):
    jobs = planned.plan("results/demo/models/proposed/pooled/generator.pt")
    assert jobs["check_domain"] == jobs["measure_scanner"] == 1


def test_without_a_trained_method_nothing_is_trained(planned, tmp_path):
    overlay = tmp_path / "bicubic.yaml"
    overlay.write_text("methods: {proposed: null, cyclegan: null}\n")
    jobs = planned.plan("--configfile", str(overlay))
    assert jobs["superresolve"] == 1 + len(REFERENCES)
    assert jobs["draw_comparison"] == 1
    assert jobs["train"] == jobs["extract_patches"] == 0


def test_a_command_can_be_pasted(planned):
    """Steps get everything from their command line."""
    text = planned.snakemake("-n", "-p").stdout
    commands = re.findall(r"^Shell command: (.*)$", text, re.MULTILINE)
    train = next(c for c in commands if c.startswith("microsr train") and "models/proposed" in c)
    assert "--losses.micro_ssim 1.0" in train and "--window_hu -1000.0 400.0" in train
    assert "--device auto" in train and "<" not in train
