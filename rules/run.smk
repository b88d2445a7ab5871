# The run as a whole: it is the only one of its experiment at a time, tells of itself, and says at its end what there
# is.
import yaml
from snakemake.logging import logger as snakemake_logger

from microsr.config.sheet import sheet_text
from microsr.core.provenance import write_atomically
from microsr.workflow.end_of_run import ending, failures, list_left_out, unused_gpu
from microsr.workflow.lock import claim, drop_stale_locks
from microsr.workflow.whole_run import Forecast, Watch, plan_of, training_seconds

WATCHES = []


def start():
    """Begin the one run of the experiment at this time, and write down the experiment as it runs."""
    folder = Path(RESULTS)
    try:
        claim(folder, submits=workflow.non_local_exec)
        settings = yaml.safe_dump(EXPERIMENT.model_dump(mode="json"), sort_keys=False)
        write_atomically(folder / "config.yaml", settings)
        write_atomically(folder / "cases.tsv", sheet_text(list(CASES.values())))
    except UserError as error:
        stop(error)
    if not workflow.touch:
        watch_run()
    if workflow.non_local_exec:
        print(f"To see how far the jobs are: tail -F {RESULTS}/logs/train/*/*.log", file=sys.stderr)


def watch_run():
    """Say now and then how long the whole run will still take, until it ends or fails."""
    size, cases = EXPERIMENT.patches.micro_size, len(PLAN.training_cases)
    seconds = {name: training_seconds(EXPERIMENT.training_of(name), cases, size) for name in PLAN.trained_methods}
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
    for line in failures(Path(RESULTS, "logs"), BEGAN):
        print(line, file=sys.stderr)
    print("What is finished stays; the same command goes on from there.", file=sys.stderr)


def tell_the_end():
    """Say at the very end where things are, how long they took, and what was left out.

    Of a whole run, not of single files.
    """
    stop_watching()
    asked = workflow.dag_settings
    targets = set(asked.targets) or {"all"}
    partly = workflow.touch or asked.until or asked.omit_from or asked.batch
    if partly or not targets & {"all", "figures"}:
        return
    nulls = [name for name, method in (config.get("methods") or {}).items() if method is None]
    lines = list_left_out(EXPERIMENT, CASES, PLAN.superresolved_cases, nulls)
    if shutil.which("nvidia-smi"):
        lines += unused_gpu(DEVICE, Path(RESULTS, "models").glob("*/*/run.json"))
    viewed, comparisons = len(PLAN.viewed_comparisons), len(PLAN.comparisons)
    if viewed < comparisons:
        lines.append(f"comparisons in the report: it has {viewed} of {comparisons}, figures/ all")
    without = [] if "all" in targets else ["report"]
    print(ending(EXPERIMENT.experiment, Path(RESULTS), time.time() - BEGAN, lines, without), file=sys.stderr)


if workflow.is_main_process and drop_stale_locks(Path(RESULTS)):
    print("The lock of a Snakemake that was killed is removed.", file=sys.stderr)
