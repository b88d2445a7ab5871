# The experiment, checked before anything is planned, and what the rules ask about it.
import os
import re
import shlex
import shutil
import sys
import time
from pathlib import Path

import yaml
from snakemake.logging import logger as snakemake_logger


def prepend(variable, folder):
    """Put a folder first in one of the environment's search paths."""
    os.environ[variable] = os.pathsep.join(filter(None, [str(folder), os.environ.get(variable)]))


BEGAN = time.time()
WATCHES = []

# The steps run the code of this clone, with the Python that runs Snakemake or, with --sdm conda, the environment's.
SOURCE = Path(workflow.basedir) / "src"
sys.path.insert(0, str(SOURCE))
prepend("PYTHONPATH", SOURCE)
prepend("PATH", Path(sys.executable).parent)

from microsr.core.errors import UserError
from microsr.config import EXPORTED, OF_PLAN, OF_TRAINING, flags, load
from microsr.config.sheet import read_sheet, sheet_text, simulated_cases
from microsr.workflow.end_of_run import ending, left_out, unused_gpu
from microsr.core.progress import SHARED
from microsr.core.code_version import code_version, step_version
from microsr.core.provenance import write_atomically
from microsr.workflow.lock import claim, drop_stale_locks
from microsr.workflow.whole_run import Forecast, Watch, plan_of, training_seconds

os.environ[SHARED] = "1"  # jobs run side by side: they tell of themselves in whole lines


def stop(message):
    """End before any job, with one line that says what the user can mend."""
    sys.exit(f"error: {message}")


def read_experiment():
    """The checked configuration, and the cases by name."""
    files = [Path(os.path.relpath(file)) for file in workflow.configfiles]
    overlays = [file for file in files if file != Path("config.yaml")]
    try:
        experiment = load(config, [*reversed(overlays), Path("config.yaml")])
        if experiment.cases.sheet is None:
            cases = simulated_cases(experiment.simulate, f"results/{experiment.experiment}/simulated")
        else:
            cases = read_sheet(experiment.cases)
    except UserError as error:
        stop(error)
    return experiment, {case.case: case for case in cases}


EXPERIMENT, CASES = read_experiment()
SHEET = EXPERIMENT.cases.sheet or "simulate"
RESULTS = f"results/{EXPERIMENT.experiment}"
TRAINING_CASES = [name for name, case in CASES.items() if case.split == "train"]
TEST_CASES = [name for name, case in CASES.items() if case.split == "test"]
METHODS = EXPERIMENT.methods
TRAINED_METHODS = [name for name, method in METHODS.items() if method.upsampler == "generator"]


def having(modality, cases):
    """Those of `cases` that were scanned with a modality."""
    return [name for name in cases if getattr(CASES[name], modality) is not None]


def training_sets():
    """The cases behind each model, by the name of the training set; one trained again with another seed ends in .seed<n>."""
    sets = {}
    for protocol in EXPERIMENT.protocols:
        if protocol == "pooled":
            sets["pooled"] = TRAINING_CASES
        elif protocol == "per_case":
            sets |= {f"case-{name}": [name] for name in TRAINING_CASES}
        else:
            for name in having("clinical", TRAINING_CASES):
                sets[f"without-{name}"] = [other for other in TRAINING_CASES if other != name]
    again = range(EXPERIMENT.seed + 1, EXPERIMENT.seed + EXPERIMENT.train.repeats)
    return sets | {f"{name}.seed{seed}": cases for seed in again for name, cases in sets.items()}


def base(training_set):
    """The training set without the seed of its training."""
    return training_set.partition(".")[0]


def seed_of(training_set):
    """The seed of a training, "none" where nothing is trained."""
    if training_set == "none":
        return "none"
    return training_set.partition(".seed")[2] or str(EXPERIMENT.seed)


def tested_on(training_set):
    """The cases that a model is tested on: the case that was left out, else the test cases."""
    left_out = base(training_set).removeprefix("without-")
    return TEST_CASES if left_out == base(training_set) else [left_out]


TRAINING_SETS = training_sets()
TESTED = [(training_set, case) for training_set in TRAINING_SETS for case in tested_on(training_set)]


def superresolved():
    """Method, training set and case of each evaluation; what is not trained has the training set "none"."""
    untrained = [("none", case) for case in dict.fromkeys(case for _, case in TESTED)]
    return [(method, *pair) for method in METHODS for pair in (TESTED if method in TRAINED_METHODS else untrained)]


SUPERRESOLVED = superresolved()
FURTHER_PROTOCOLS = EXPERIMENT.evaluate.further_protocols


def inputs_of(case):
    """What is super-resolved of a case, by the name of its result: the clinical CT, and what further protocols compare with.

    These are its repetition and its down-sampled uCT.
    """
    found = {case: "clinical"}
    if CASES[case].repeat is not None and "repeatability" in FURTHER_PROTOCOLS:
        found[f"{case}.repeat"] = "repeat"
    if CASES[case].micro is not None and "downsampled" in FURTHER_PROTOCOLS:
        found[f"{case}.downsampled"] = "downsampled"
    return found


INPUTS = {name: (case, modality) for case in CASES for name, modality in inputs_of(case).items()}


def protocols_of(case):
    """The tables of metrics that a case allows: `images` holds the protocols no_reference and truth."""
    found = ["images"] + ["distribution"] * ("distribution" in FURTHER_PROTOCOLS)
    return found + [{"repeat": "repeatability"}.get(m, m) for m in inputs_of(case).values() if m != "clinical"]


# Cases of which everything is known: the truth, its tissues and its airways.
KNOWN_CASES = [name for name, case in CASES.items() if case.truth and case.labels and case.airways]
KNOWN = [(method, training_set, case) for method, training_set, case in SUPERRESOLVED if case in KNOWN_CASES]
METRICS = [f"<results>/tables/metrics/{m}/{s}/{c}.{p}.csv" for m, s, c in SUPERRESOLVED for p in protocols_of(c)]


def check_plan():
    """Stop if the cases do not allow what is asked for."""
    if not TRAINING_CASES:
        stop(f"{SHEET}: no case has split 'train'; at least one is needed")
    if not SUPERRESOLVED:
        stop(
            f"{SHEET}: no case to test on; give one the split 'test', or set protocols to "
            "[leave_one_out], which tests on training cases that have a clinical CT"
        )
    for name, cases in TRAINING_SETS.items():
        for modality in ("clinical", "micro"):
            if not having(modality, cases):
                stop(
                    f"{SHEET}: the training set '{name}' (cases: {', '.join(cases) or 'none'}) has no "
                    f"{modality} volume; fill the column '{modality}', or change protocols "
                    f"(now {', '.join(EXPERIMENT.protocols)})"
                )
    micro = EXPERIMENT.volumes.micro
    if micro.sampling == "matched" and micro.matched_spacing_mm is None:
        for name in having("micro", CASES):
            if CASES[name].clinical is None:
                stop(
                    f"volumes.micro.matched_spacing_mm: must be given, as case '{name}' has uCT but no clinical CT "
                    "whose pixel size it could be matched to"
                )


check_plan()

# Jobs that may use the GPU claim it where there is one; profiles/default lets one at a time.
DEVICE, DEVICES, NODES = EXPERIMENT.compute.device, EXPERIMENT.compute.devices, EXPERIMENT.compute.nodes
GPU = int(DEVICE == "cuda" or (DEVICE == "auto" and shutil.which("nvidia-smi") is not None))
ENVIRONMENT = str(Path(workflow.basedir) / "envs/cpu.yaml")
NETWORK_ENVIRONMENT = str(Path(workflow.basedir) / "envs/gpu.yaml") if DEVICE == "cuda" else ENVIRONMENT


def compute_flags(without=()):
    """Params function: how the work is done, without the keys named, with the threads that the job has.

    As it asks for `threads`, Snakemake does not compare it: edits re-run nothing.
    """
    settings = flags(EXPERIMENT.compute, without=["threads", *without])
    return lambda wildcards, threads: f"{settings} --threads {threads}"


def training_compute(wildcards, threads):
    """Params function: how a training is done, with the experiment's number of threads.

    The job may have fewer, as many as Snakemake was given cores, but the weights depend on their number in the last digits,
    and they must not depend on the machine's. It asks for `threads` for the same reason as `compute_flags`.
    """
    return flags(EXPERIMENT.compute)


def any_of(names):
    """The pattern of a wildcard that takes one of `names`."""
    return "|".join(map(re.escape, names)) or "(?!)"


pathvars:
    results=RESULTS,
    logs="<results>/logs",
    benchmarks="<results>/benchmarks",


wildcard_constraints:
    case=any_of(CASES),
    method=any_of(METHODS),
    training_set=any_of([*TRAINING_SETS, "none"]),
    modality="clinical|micro",
    scan=any_of(INPUTS),


def record_experiment():
    """Write down the experiment as it runs: its resolved settings and its cases."""
    folder = Path(RESULTS)
    settings = yaml.safe_dump(EXPERIMENT.model_dump(mode="json"), sort_keys=False)
    write_atomically(folder / "config.yaml", settings)
    write_atomically(folder / "cases.tsv", sheet_text(list(CASES.values())))


def start():
    """Begin the one run of the experiment at this time."""
    try:
        claim(Path(RESULTS), submits=workflow.non_local_exec)
        record_experiment()
    except UserError as error:
        stop(error)
    if not workflow.touch:
        watch_run()
    if workflow.non_local_exec:
        print(f"To see how far the jobs are: tail -F {RESULTS}/logs/train/*/*.log", file=sys.stderr)


def watch_run():
    """Say now and then how long the whole run will still take, until it ends or fails."""
    training, size = EXPERIMENT.training_of, EXPERIMENT.patches.micro_size
    seconds = {method: training_seconds(training(method), len(TRAINING_CASES), size) for method in TRAINED_METHODS}
    plan = plan_of(workflow.dag.needrun_jobs(), workflow.dag.dependencies, seconds)
    watch = Watch(Forecast(plan, workflow.nodes if workflow.non_local_exec else workflow.cores))
    snakemake_logger.addHandler(watch)
    watch.begin()
    WATCHES.append(watch)


def stop_watching():
    """Say no more of the time left."""
    for watch in WATCHES:
        watch.end()


def tell_what_failed():
    """Say at the very end, below all that Snakemake shows, why steps failed: the errors that their logs end with."""
    stop_watching()
    for log in sorted(Path(RESULTS, "logs").rglob("*.log")):
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.stat().st_mtime >= BEGAN else []
        _, found, why = (lines or [""])[-1].partition(" ERROR error: ")
        if found:
            print(f"Failed: {why} [{log}]", file=sys.stderr)
    print("What is finished stays; the same command goes on from there.", file=sys.stderr)


def tell_the_end():
    """Say at the very end where things are, how long they took, and what was left out: of a whole run, not of single files."""
    stop_watching()
    asked = workflow.dag_settings
    targets = set(asked.targets) or {"all"}
    partly = workflow.touch or asked.until or asked.omit_from or asked.batch
    if partly or not targets & {"all", "figures"}:
        return
    nulls = [name for name, method in (config.get("methods") or {}).items() if method is None]
    lines = left_out(EXPERIMENT, CASES, list(dict.fromkeys(case for _, _, case in SUPERRESOLVED)), nulls)
    if shutil.which("nvidia-smi"):
        lines += unused_gpu(DEVICE, Path(RESULTS, "models").glob("*/*/run.json"))
    if len(VIEWED) < len(COMPARISONS):
        lines.append(f"comparisons in the report: it has {len(VIEWED)} of {len(COMPARISONS)}, figures/ all")
    without = [] if "all" in targets else ["report"]
    print(ending(EXPERIMENT.experiment, Path(RESULTS), time.time() - BEGAN, lines, without), file=sys.stderr)


if workflow.is_main_process and drop_stale_locks(Path(RESULTS)):
    print("The lock of a Snakemake that was killed is removed.", file=sys.stderr)


# Simulation

LABELLED = "labelled"  # the lung whose tissue labels the features are learnt from, and which the validation measures
SIMULATION = f"{flags(EXPERIMENT.simulate, without=('training_cases', 'test_cases'))} {flags(EXPERIMENT.scanner)}"


# Volumes


def scan(modality):
    """Input function: the file or folder that a case's scan is in."""
    return lambda wildcards: getattr(CASES[wildcards.case], modality).path


def scan_flags(modality):
    """Params function: which part of that file or folder, and its spacing, where the sheet says so."""

    def given(wildcards):
        facts = getattr(CASES[wildcards.case], modality).model_dump(exclude={"path"}, exclude_none=True)
        return " ".join(f"--{key} {shlex.quote(value)}" for key, value in facts.items())

    return given


def clinical_to_match(wildcards):
    """Input function: the clinical CT whose pixel size the uCT is resampled to, if any."""
    micro = EXPERIMENT.volumes.micro
    if micro.sampling == "matched" and micro.matched_spacing_mm is None:
        return f"<results>/volumes/{wildcards.case}/clinical.ome.zarr"
    return []


def volumes(modality, cases):
    """The imported volumes of those of `cases` that were scanned with a modality."""
    return [f"<results>/volumes/{case}/{modality}.ome.zarr" for case in having(modality, cases)]


def gigabytes(paths):
    """Size of files, and of the files in folders. Raises FileNotFoundError, which to Snakemake means: ask again later."""

    def size(path):
        if path.is_dir():
            return sum(file.stat().st_size for file in path.rglob("*"))
        return path.stat().st_size

    return sum(size(Path(path)) for path in paths) / 1e9


def more_each_time(least):
    """Resource function: memory in MB or minutes, `least` at the first attempt, for work that hardly depends on its input."""
    return lambda wildcards, attempt: attempt * least


def growing(least, per_gigabyte):
    """Resource function: memory in MB or minutes that grows with the input and the attempt."""
    return lambda wildcards, input, attempt: attempt * round(least + per_gigabyte * gigabytes(input))


# Training


def patches(modality):
    """Input function: the training patches of a training set."""
    return lambda wildcards: training_patches(modality, wildcards.training_set)


def training_patches(modality, training_set):
    """The patch files of a training set."""
    return [f"<results>/patches/{case}/{modality}.npy" for case in having(modality, TRAINING_SETS[training_set])]


def numbered(stem, names):
    """Figure or table of each of `names`: `stem` for the first, `stem_name` for the others."""
    return {f"{stem}_{name}" if n else stem: name for n, name in enumerate(names)}


DOMAINS = numbered("domain", dict.fromkeys(map(base, TRAINING_SETS))) if TRAINED_METHODS else {}


def domain_table(wildcards):
    """Input function: the domain check of a training set."""
    return next(f"<results>/tables/{name}.csv" for name, s in DOMAINS.items() if s == base(wildcards.training_set))


def network_flags(method):
    """The method and its training, as Fig. 1 shows them."""
    return f"{flags(METHODS[method])} {flags(EXPERIMENT.training_of(method), without=['repeats'])}"


def training_flags(method):
    """All that decides a training besides its patches."""
    learns_noise = METHODS[method].uses_noise or EXPERIMENT.training_of(method).start_steps
    scanner = f" {flags(EXPERIMENT.scanner)}" if learns_noise else ""
    return network_flags(method) + scanner


def launcher(wildcards, threads):
    """Params function: what starts a training's processes, where there are several.

    It asks for `threads` for the same reason as `compute_flags`. torchrun passes signals on to the processes, which then
    have two minutes to save their state.
    """
    if DEVICES * NODES == 1:
        return ""
    torchrun = (
        f"torchrun --nproc_per_node {DEVICES} --signals_to_handle SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
        " --shutdown_timeout 120"
    )
    if NODES == 1:
        return f"{torchrun} --standalone --no_python -- "
    # srun has to be told again of the job's CPUs; each job has a port of its own, as two may meet on a node.
    return (
        f"srun --nodes {NODES} --ntasks-per-node=1 ${{SLURM_CPUS_PER_TASK:+--cpus-per-task=$SLURM_CPUS_PER_TASK}}"
        f' {torchrun} --nnodes {NODES} --rdzv_backend c10d --rdzv_id "$SLURM_JOB_ID" --rdzv_endpoint'
        ' "$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1):$((29500 + SLURM_JOB_ID % 1000))"'
        " --no_python -- "
    )


WINDOW = "{} {}".format(*EXPERIMENT.window_hu)
TRAININGS = [(method, training_set) for method in TRAINED_METHODS for training_set in TRAINING_SETS]
MODELS = [
    f"<results>/models/{method}/{training_set}/{file}"
    for method, training_set in TRAININGS
    for file in ("generator.pt", "history.csv", "run.json")
]


# Quality against cost is drawn where there is something to choose.
DIFFERENT_NETWORKS = len({EXPERIMENT.training_of(method).network for method in TRAINED_METHODS}) > 1

# Super-resolution and evaluation


def generator(wildcards):
    """Input function: the trained generator of a method that has one."""
    if wildcards.method in TRAINED_METHODS:
        return "<results>/models/{method}/{training_set}/generator.pt"
    return []


def volume_to_superresolve(wildcards):
    """Input function: the imported volume."""
    return "<results>/volumes/{}/{}.ome.zarr".format(*INPUTS[wildcards.scan])


def slices_to_superresolve(wildcards):
    """Params function: the chosen slices (of a down-sampled uCT, which has a few, all) and the precision."""
    if INPUTS[wildcards.scan][1] == "downsampled":
        return f"--slices all {flags(EXPERIMENT.superresolve, without=['slices', 'formats'])}"
    return flags(EXPERIMENT.superresolve, without=["formats"])


def upsampler(wildcards, input):
    """Params function: the way of up-sampling, as a flag."""
    return f"--model {input.model}" if input.model else f"--upsampler {METHODS[wildcards.method].upsampler}"


# Names that the super-resolved volumes have in the formats of superresolve.formats: files, and a folder of DICOM slices.
ENDINGS = {"nifti": ".nii", "nifti.gz": ".nii.gz", "nrrd": ".nrrd", "metaimage": ".mha"}
ENDINGS |= {kind: f".{kind}" for kind in EXPORTED if kind not in (*ENDINGS, "dicom")}
EXPORTS = [
    f"<results>/superresolved/{method}/{training_set}/{case}{ENDINGS.get(kind, '_dicom')}"
    for kind in EXPERIMENT.superresolve.formats
    for method, training_set, case in SUPERRESOLVED
]


def given(modality):
    """Input function: a volume of the case, where it has one."""
    return lambda wildcards: volumes(modality, [wildcards.case])


def optional(name):
    """Params function: a flag for an input that may be missing."""
    return lambda wildcards, input: f"--{name} {input[name]}" if input.get(name) else ""


def model_names(wildcards):
    """Params function: what identifies the model in the tables."""
    training_set = wildcards.training_set
    return (
        f"--case {wildcards.case} --method {wildcards.method} --training_set {base(training_set)}"
        f" --seed {seed_of(training_set)}"
    )


def reference_micro(wildcards):
    """Input function: the uCT whose spectrum is the aim: the case's own, else that of all training cases."""
    return volumes("micro", [wildcards.case]) or volumes("micro", TRAINING_CASES)


EVALUATION = flags(EXPERIMENT.evaluate, without=[*OF_PLAN, "feature_steps"])


# Figures and tables


def comparisons():
    """Training set and case of each comparison figure, by its name; the first one is called `comparison`."""
    once = [pair for pair in TESTED if pair[0] == base(pair[0])]
    first, *others = sorted(once, key=lambda pair: pair[0] != "pooled")
    return {"comparison": first} | {f"comparison_{case}_{s}": (s, case) for s, case in others}


COMPARISONS = comparisons()
NETWORKS = numbered("network", TRAINED_METHODS)


def compared(modality):
    """Input function: an imported volume of the case of a comparison, if it has one."""
    return lambda wildcards: volumes(modality, [COMPARISONS[wildcards.comparison][1]])


def compared_methods(wildcards):
    """Input function: each method's super-resolved CT, in the order of the panels."""
    training_set, case = COMPARISONS[wildcards.comparison]
    return [f"<results>/superresolved/{results_of(m, training_set, case)}.ome.zarr" for m in METHODS]


def models_compared(wildcards):
    """Input function: the generator of each trained method that the comparison shows."""
    training_set, _ = COMPARISONS["comparison"]
    return [f"<results>/models/{method}/{training_set}/generator.pt" for method in TRAINED_METHODS]


def panels(wildcards, input):
    """Params function: name and volume of each panel."""
    return [f"{method}={volume}" for method, volume in zip(METHODS, input.superresolved)]


def comparison_words(wildcards):
    """Params function: title and note of a comparison."""
    training_set, case = COMPARISONS[wildcards.comparison]
    protocol, _, name = training_set.partition("-")
    trained = {"pooled": "on all training cases", "case": f"on {name} only", "without": f"without {name}"}[protocol]
    words = ["--title", f"{case} (models trained {trained})" if TRAINED_METHODS else case]
    words += ["--note", EXPERIMENT.note] if EXPERIMENT.note else []
    return shlex.join(words)


def metric_figures():
    """The figures of metrics, each with its flag: what matters most, and one for each protocol."""
    found = {"no_reference"} | {p for _, _, case in SUPERRESOLVED for p in protocols_of(case) if p != "images"}
    found |= {"truth" for _, _, case in SUPERRESOLVED if CASES[case].truth is not None}
    return {"metrics": ""} | {f"metrics_{protocol}": f"--protocol {protocol}" for protocol in sorted(found)}


METRIC_FIGURES = metric_figures()


def hallucinations():
    """Training set and case of the figure of hallucinations, by its name: the first comparison whose truth is known."""
    return {"hallucination": pair for pair in list(COMPARISONS.values())[::-1] if pair[1] in KNOWN_CASES}


HALLUCINATIONS = hallucinations()


def results_of(method, training_set, case):
    """Training set and case of a method's results in a comparison."""
    return f"{method}/{training_set if method in TRAINED_METHODS else 'none'}/{case}"


def hallucinated(kind):
    """Input function: volumes of a kind, one a method, for the figure of hallucinations."""
    return lambda wildcards: [
        f"<results>/{kind}/{results_of(m, *HALLUCINATIONS['hallucination'])}.ome.zarr" for m in METHODS
    ]


def figure_code(name):
    """Version of the code that decides a figure."""
    return step_version(f"figures.{name}")


def stem(wildcards, output):
    """Params function: where a figure or table goes, without the extension of its first file."""
    return str(Path(output[0]).with_suffix(""))


# The lung that it measures is made for it alone.
VALIDATED = ["validation"] * EXPERIMENT.evaluate.validate_simulation
TABLES = [f"<results>/tables/{name}.csv" for name in ("volumes", "metrics", "summary", *VALIDATED)]
TYPESET = {
    "volumes": "volumes",
    "metrics": "summary",
    "summary": "summary",
}  # table for a paper -> what it is made from
TABLES += [f"<results>/tables/{name}.{ending}" for name in TYPESET for ending in ("tex", "md")]
FIGURE_NAMES = [*COMPARISONS, *METRIC_FIGURES, *HALLUCINATIONS, "volumes", *VALIDATED] + ["bronchioles"] * bool(KNOWN)
if TRAININGS:
    TABLES += [f"<results>/tables/{name}.csv" for name in DOMAINS]
    TABLES.append("<results>/tables/tiling.csv")
    FIGURE_NAMES += [*NETWORKS, "losses", "tiling", *DOMAINS]
    FIGURE_NAMES += [
        f"patches_{case}_{modality}" for modality in ("clinical", "micro") for case in having(modality, TRAINING_CASES)
    ]
if DIFFERENT_NETWORKS:
    TABLES.append("<results>/tables/efficiency.csv")
    FIGURE_NAMES.append("efficiency")
# Two are made for the report. Its sample panels are of the trainings that the first comparison shows.
PANELLED = {method: f"{method}/{COMPARISONS['comparison'][0]}" for method in TRAINED_METHODS}
FIGURE_NAMES += ["calibration"] + ["panels"] * bool(PANELLED)
FIGURES = [f"<results>/figures/{name}.{extension}" for name in FIGURE_NAMES for extension in ("png", "pdf")]


def viewed(name):
    """What a comparison compares, by the words of the command."""
    training_set, case = COMPARISONS[name]
    methods = {f"method/{m}": f"superresolved/{results_of(m, training_set, case)}" for m in METHODS}
    truth = {"truth": f"volumes/{case}/truth"} if CASES[case].truth else {}
    return {"clinical": f"volumes/{case}/clinical"} | methods | truth


def views():
    """The comparisons that can be looked into, as flags."""
    words = []
    for name in VIEWED:
        words += ["--view", f"{RESULTS}/figures/{name}.run.json"]
        words += [f"{kind}={RESULTS}/{volume}.ome.zarr" for kind, volume in viewed(name).items()]
    return shlex.join(words)
