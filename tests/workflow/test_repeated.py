"""Two runs give the same results, bit for bit, whatever number of cores Snakemake had and gave to a job."""

import pytest
from comparing import differences

pytestmark = [pytest.mark.workflow, pytest.mark.nightly]
SMOKE = ["--configfile", "experiments/smoke.yaml"]
MADE = (
    "models/proposed/pooled/generator.pt",
    "tables/metrics/proposed/pooled/test1.images.csv",
    "tables/volumes.csv",
    *(f"figures/{name}.png" for name in ("network", "domain", "patches_train1_clinical")),
)
"""A model, its super-resolved slice and that one's metrics, and the figures that need no more."""


def test_a_second_run_on_other_cores_gives_the_same_bits(finished, workflow):
    """Jobs of up to three threads, of which a training takes as many as the experiment says."""
    cores = ["--cores", "3", "--set-threads", "train=3", "superresolve=3"]
    done = workflow.snakemake(*(f"results/smoke/{name}" for name in MADE), *cores, *SMOKE)
    assert done.returncode == 0, done.stdout[-6000:]
    first, second = (one.folder / "results/smoke" for one in (finished, workflow))
    assert all((second / name).is_file() for name in MADE)
    assert differences(first, second, partial=True) == []
