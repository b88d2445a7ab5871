# What all rules share: the experiment, checked before anything is planned, input functions, parameters and resources.
# What is to be made is in src/microsr/workflow/plan.py.
import os
import re
import shlex
import shutil
import sys
import time
from pathlib import Path


def prepend(variable, folder):
    """Put a folder first in one of the environment's search paths."""
    os.environ[variable] = os.pathsep.join(filter(None, [str(folder), os.environ.get(variable)]))


BEGAN = time.time()

# The steps run the code beside this workflow, with the Python that runs Snakemake or, with --sdm conda, the
# environment's. (workflow.basedir would be the folder of who includes this workflow, or uses it as a module.)
WORKFLOW = Path(workflow.current_basedir.get_path_or_uri(secret_free=True)).parent
if (WORKFLOW / "src").is_dir():  # a clone; else the workflow of the installed package
    sys.path.insert(0, str(WORKFLOW / "src"))
    prepend("PYTHONPATH", WORKFLOW / "src")
elif "conda" in map(str, workflow.deployment_settings.deployment_method):
    from microsr.core.folders import package_alone

    prepend("PYTHONPATH", package_alone(Path(".snakemake")))
prepend("PATH", Path(sys.executable).parent)

from microsr.core.errors import UserError
from microsr.config import OF_TRAINING, REFERENCES, flags, load, with_trials
from microsr.config.sheet import read_sheet, simulated_cases, with_scans
from microsr.core.progress import SHARED
from microsr.core.code_version import code_version, step_version
from microsr.core.registry.figures import FIGURES
from microsr.core.registry.protocols import PROTOCOLS
from microsr.workflow.run import check_arguments
from microsr.workflow.plan import ENDINGS, LABELLED, TYPESET, Plan, Result, base, launcher

os.environ[SHARED] = "1"  # jobs run side by side: they tell of themselves in whole lines


def stop(message):
    """End before any job, with one line that says what the user can mend."""
    sys.exit(f"error: {message}")


def read_plan():
    """The plan of the experiment, from its checked configuration and its cases."""
    given = workflow.overwrite_configfiles  # by --configfile: they are laid over those that Snakefiles name
    files = [*reversed(given), *reversed(workflow.configfiles[len(given) :])]
    try:
        check_arguments(sys.argv[1:] if workflow.is_main_process else [])
        experiment = load(config, list(dict.fromkeys(Path(os.path.relpath(file)) for file in files)))
        if experiment.cases.sheet is None:
            cases = simulated_cases(experiment.simulate, f"results/{experiment.experiment}/simulated")
        else:
            cases = read_sheet(experiment.cases, experiment.scan.micro)
        if experiment.scan.micro:
            cases = with_scans(cases, f"results/{experiment.experiment}/scanned")
        return Plan(with_trials(experiment), {case.case: case for case in cases})
    except UserError as error:
        stop(error)


PLAN = read_plan()
EXPERIMENT, CASES, METHODS, RESULTS = PLAN.experiment, PLAN.cases, PLAN.experiment.methods, PLAN.results

# Jobs that may use the GPU claim it where there is one; profiles/default lets one at a time.
DEVICE, DEVICES, NODES = EXPERIMENT.compute.device, EXPERIMENT.compute.devices, EXPERIMENT.compute.nodes
GPU = int(DEVICE == "cuda" or (DEVICE == "auto" and shutil.which("nvidia-smi") is not None))
ENVIRONMENT = str(WORKFLOW / "envs/cpu.yaml")
NETWORK_ENVIRONMENT = str(WORKFLOW / "envs/gpu.yaml") if DEVICE == "cuda" else ENVIRONMENT


def any_of(names):
    """The pattern of a wildcard that takes one of `names`."""
    return "|".join(map(re.escape, names)) or "(?!)"


pathvars:
    results=RESULTS,
    logs="<results>/logs",
    benchmarks="<results>/benchmarks",


wildcard_constraints:
    case=any_of(CASES),
    method=any_of([*METHODS, *REFERENCES]),
    training_set=any_of([*PLAN.training_sets, "none"]),
    modality="clinical|micro",
    scan=any_of(PLAN.scans),


# Inputs


def scan(modality):
    """Input function: the file or folder that a case's scan is in; nothing, if it is read from a server."""
    return lambda wildcards: PLAN.scan_files(wildcards.case, modality)


def mask(modality):
    """Input function: the file or folder of the mask of a case's scan, where one is given."""
    return lambda wildcards: PLAN.mask_files(wildcards.case, modality)


def given(modality):
    """Input function: an imported volume of the case, where it has one."""
    return lambda wildcards: PLAN.volumes(modality, [wildcards.case])


def clinical_to_match(wildcards):
    """Input function: the clinical CT whose pixel size the uCT is resampled to, if any."""
    return f"<results>/volumes/{wildcards.case}/clinical.ome.zarr" if PLAN.matches_clinical else []


def patches(held):
    """Input function: the files with patches, or scans of them, that a method learns from, by what they hold."""
    return lambda wildcards: PLAN.training_files(wildcards.method, wildcards.training_set, held)


def generator(wildcards):
    """Input function: the trained generator of a method that has one."""
    model = PLAN.model_of(wildcards.method)
    return f"<results>/models/{model}/{wildcards.training_set}/generator.pt" if model else []


def volume_to_superresolve(wildcards):
    """Input function: the imported volume."""
    return PLAN.scan_volume(wildcards.method, wildcards.scan)


def known_volume(wildcards):
    """Input function: the volume that stands in a method's place, as the truth."""
    return PLAN.known_volume(wildcards.method, wildcards.scan)


def protocol_inputs(protocol):
    """Input function: what a further protocol compares, by the flag of its command."""
    return lambda wildcards: PLAN.evaluation_files(protocol, Result(**wildcards))


# Parameters


def compute_flags(without=()):
    """Params function: how the work is done, without the keys named, with the threads that the job has.

    As it asks for `threads`, Snakemake does not compare it: edits re-run nothing.
    """
    settings = flags(EXPERIMENT.compute, without=["threads", *without])
    return lambda wildcards, threads: f"{settings} --threads {threads}"


def training_compute(wildcards, threads):
    """Params function: how a training is done, with the experiment's number of threads.

    The job may have fewer, as many as Snakemake was given cores, but the weights depend on their number in the last
    digits, and they must not depend on the machine's. It asks for `threads` for the same reason as `compute_flags`.
    """
    return flags(EXPERIMENT.compute)


def training_launcher(wildcards, threads):
    """Params function: what starts a training's processes.

    It asks for `threads` for the same reason as `compute_flags`.
    """
    return launcher(EXPERIMENT.compute)


def upsampler(wildcards, input):
    """Params function: the way of up-sampling, as a flag."""
    if input.known:
        return f"--known {input.known}"
    return f"--model {input.model}" if input.model else f"--upsampler {PLAN.interpolation(wildcards.method)}"


def words_of(inputs, *names):
    """Flags for inputs of which each may be missing."""
    return " ".join(f"--{name} {inputs[name]}" for name in names if inputs.get(name))


def optional(*names):
    """Params function: flags for inputs that may be missing."""
    return lambda wildcards, input: words_of(input, *names)


def model_names(wildcards):
    """Params function: what identifies the model in the tables."""
    return PLAN.name_flags(Result(wildcards.method, wildcards.training_set, wildcards.case))


def stem(wildcards, output):
    """Params function: where a figure or table goes, without the extension of its first file."""
    return str(Path(output[0]).with_suffix(""))


def drawn(figure, kind, category, what):
    """Output section of a figure: one for the screen, with what the report says of it, one for print, and its record.

    kind: its caption is report/<kind>.rst, where there is one. category, what: where the figure is in Snakemake's
    report, and its name there, in words or as a function of the wildcards that gives them.
    """
    labels = (lambda wildcards: {"what": what(wildcards)}) if callable(what) else {"what": what}
    path = f"<results>/figures/{figure}"
    png = report(f"{path}.png", category=category, labels=labels, **caption(kind))
    return {"png": png, "pdf": f"{path}.pdf", "run": f"{path}.run.json"}


def caption(name):
    """What Snakemake's report says below a figure or table, where report/<name>.rst says it."""
    return {"caption": f"../report/{name}.rst"} if (WORKFLOW / f"report/{name}.rst").is_file() else {}


# Figures


def drawing(kind, value):
    """A function of the wildcards: what `value` says of the figure of a kind, a `workflow.plan.Drawing`."""
    return lambda wildcards: value(PLAN.drawings[kind][wildcards.figure])


def drawn_files(kind):
    """Params function: the flags of a figure that name files, each with the file's name where the command takes it."""

    def words(wildcards, input, output):
        names = PLAN.drawings[kind][wildcards.figure].names
        found = [f"--{FIGURES[kind].writes} {output.table}"] if FIGURES[kind].writes else []
        for flag in input.keys():
            paths = [f"{name}={path}" for name, path in zip(names[flag], input[flag])] if flag in names else input[flag]
            found += [f"--{flag} {' '.join(paths)}"] if paths else []
        return " ".join(found)

    return words


def drawn_table(kind):
    """Output section of the table that a figure writes beside it, and its record; nothing where it writes none."""
    if not FIGURES[kind].writes:
        return {}
    table, title = ensure("<results>/tables/{figure}.csv", non_empty=True), FIGURES[kind].title
    shown = report(
        table, category=FIGURES[kind].category, labels={"what": f"{title}, table"}, **caption(f"{kind}_table")
    )
    return {"table": shown, "table_run": "<results>/tables/{figure}.run.json"}


def with_draws(stem, beside, kept=lambda path: path):
    """Output section of the mean of draws and of what is written beside it, each with its record."""
    names = {"volume": stem} | {held: f"{stem}_{held}" for held in beside}
    volumes = {held: kept(directory(f"{name}.ome.zarr")) for held, name in names.items()}
    records = {f"{held}_run": kept(f"{name}.run.json") for held, name in names.items()}
    return volumes | records


# Resources


def gigabytes(paths):
    """Size of files, and of the files in folders.

    Raises FileNotFoundError, which to Snakemake means: ask again later.
    """

    def size(path):
        if path.is_dir():
            return sum(file.stat().st_size for file in path.rglob("*"))
        return path.stat().st_size

    return sum(size(Path(path)) for path in paths) / 1e9


def more_each_time(least):
    """Resource function: memory in MB or minutes, `least` at the first attempt.

    For work that hardly depends on its input.
    """
    return lambda wildcards, attempt: attempt * least


def growing(least, per_gigabyte):
    """Resource function: memory in MB or minutes that grows with the input and the attempt."""
    return lambda wildcards, input, attempt: attempt * round(least + per_gigabyte * gigabytes(input))
