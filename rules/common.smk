# What all rules share: the experiment, checked before anything is planned, input functions, parameters and resources.
# What is to be made is in src/microsr/workflow/plan.py.
import os
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
from microsr.config import OF_TRAINING, REFERENCES, flags
from microsr.core.progress import SHARED
from microsr.core.code_version import code_version, step_version
from microsr.core.registry.figures import FIGURES
from microsr.core.registry.protocols import PROTOCOLS
from microsr.workflow.run import check_arguments
from microsr.workflow.drawings import Drawings
from microsr.workflow.jobs import any_of, drawing_words, file_words, gigabytes, launcher
from microsr.workflow.plan import ENDINGS, LABELLED, TYPESET, Result, read_plan

os.environ[SHARED] = "1"  # jobs run side by side: they tell of themselves in whole lines


def stop(message):
    """End before any job, with one line that says what the user can mend."""
    sys.exit(f"error: {message}")


def checked_plan():
    """The plan of the experiment, from the settings that Snakemake was given."""
    given = workflow.overwrite_configfiles  # by --configfile: they are laid over those that Snakefiles name
    files = [*reversed(given), *reversed(workflow.configfiles[len(given) :])]
    try:
        check_arguments(sys.argv[1:] if workflow.is_main_process else [])
        return read_plan(config, [Path(os.path.relpath(file)) for file in files])
    except UserError as error:
        stop(error)


PLAN = checked_plan()
DRAWINGS = Drawings(PLAN)
EXPERIMENT, CASES, METHODS, RESULTS = PLAN.experiment, PLAN.cases, PLAN.experiment.methods, PLAN.results

# Jobs that may use the GPU claim it where there is one; profiles/default lets one at a time.
DEVICE, DEVICES, NODES = EXPERIMENT.compute.device, EXPERIMENT.compute.devices, EXPERIMENT.compute.nodes
GPU = int(DEVICE == "cuda" or (DEVICE == "auto" and shutil.which("nvidia-smi") is not None))
ENVIRONMENT = str(WORKFLOW / "envs/cpu.yaml")
NETWORK_ENVIRONMENT = str(WORKFLOW / "envs/gpu.yaml") if DEVICE == "cuda" else ENVIRONMENT


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


def patches(held):
    """Input function: the files with patches, or scans of them, that a method learns from, by what they hold."""
    return lambda wildcards: PLAN.training_files(wildcards.method, wildcards.training_set, held)


# Parameters


def compute_flags(without=()):
    """Params function: how the work is done, without the keys named, with the threads that the job has.

    As it asks for `threads`, Snakemake does not compare it: edits re-run nothing.
    """
    settings = flags(EXPERIMENT.compute, without=["threads", *without])
    return lambda wildcards, threads: f"{settings} --threads {threads}"


def display_flags(wildcards, threads):
    """Params function: the grey scale in which viewers open a volume of another organ than the lung.

    It asks for `threads` for the same reason as `compute_flags`: what a figure shows makes no volume old.
    """
    return "" if wildcards.get("known") == "labels" else PLAN.display_flags


def upsampler(wildcards, input):
    """Params function: the way of up-sampling, as a flag."""
    if input.known:
        return f"--known {input.known}"
    return f"--model {input.model}" if input.model else f"--upsampler {PLAN.interpolation(wildcards.method)}"


def optional(*names):
    """Params function: flags for inputs that may be missing."""
    return lambda wildcards, input: file_words(input, *names)


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
    """A function of the wildcards: what `value` says of the figure of a kind, a `workflow.drawings.Drawing`."""
    return lambda wildcards: value(DRAWINGS.by_kind[kind][wildcards.figure])


def drawn_files(kind):
    """Params function: the flags of a figure that name files, each with the file's name where the command takes it."""

    def words(wildcards, input, output):
        written = {flag: output.table for flag in [FIGURES[kind].writes] if flag}
        return drawing_words(dict(input.items()), DRAWINGS.by_kind[kind][wildcards.figure].names, written)

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


def more_each_time(least):
    """Resource function: memory in MB or minutes, `least` at the first attempt.

    For work that hardly depends on its input.
    """
    return lambda wildcards, attempt: attempt * least


def growing(least, per_gigabyte):
    """Resource function: memory in MB or minutes that grows with the input and the attempt."""
    return lambda wildcards, input, attempt: attempt * round(least + per_gigabyte * gigabytes(input))
