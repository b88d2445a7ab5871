"""What rules ask of one job: words of its command, the size of its inputs, what its wildcards may be."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from microsr.config import Compute


def any_of(names: Iterable[str]) -> str:
    """The pattern of a wildcard that takes one of `names`; of none, a pattern that nothing matches."""
    return "|".join(map(re.escape, names)) or "(?!)"


def file_words(inputs: Mapping[str, object], *names: str) -> str:
    """Flags for those inputs of `names` that are there, each with its files."""
    return " ".join(f"--{name} {inputs[name]}" for name in names if inputs.get(name))


def drawing_words(
    inputs: Mapping[str, Sequence[str]], names: Mapping[str, Sequence[str]], written: Mapping[str, str]
) -> str:
    """Flags of a figure that name files.

    inputs: the files, by flag. names: by flag, the name of each file, where the command takes NAME=PATH. written: what
    is written beside the figure, by flag.
    """
    words = [f"--{flag} {path}" for flag, path in written.items()]
    for flag, paths in inputs.items():
        if flag in names:
            paths = [f"{name}={path}" for name, path in zip(names[flag], paths, strict=True)]
        words += [f"--{flag} {' '.join(paths)}"] if paths else []
    return " ".join(words)


def gigabytes(paths: Iterable[str | Path]) -> float:
    """Size of files, and of the files in folders.

    Raises FileNotFoundError, which to Snakemake means: ask again later.
    """

    def measure(path: Path) -> int:
        if path.is_dir():
            return sum(file.stat().st_size for file in path.rglob("*") if not file.is_dir())
        return path.stat().st_size

    return sum(measure(Path(path)) for path in paths) / 1e9


def launcher(compute: Compute) -> str:
    """Words that start the processes of a training, before its command; none where there is one process.

    torchrun passes signals on to the processes, which then have two minutes to save their state.
    """
    devices, nodes = compute.devices, compute.nodes
    if devices * nodes == 1:
        return ""
    torchrun = (
        f"torchrun --nproc_per_node {devices} --signals_to_handle SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1"
        " --shutdown_timeout 120"
    )
    if nodes == 1:
        return f"{torchrun} --standalone --no_python -- "
    # srun has to be told again of the job's CPUs; each job has a port of its own, as two may meet on a node.
    return (
        f"srun --nodes {nodes} --ntasks-per-node=1 ${{SLURM_CPUS_PER_TASK:+--cpus-per-task=$SLURM_CPUS_PER_TASK}}"
        f' {torchrun} --nnodes {nodes} --rdzv_backend c10d --rdzv_id "$SLURM_JOB_ID" --rdzv_endpoint'
        ' "$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1):$((29500 + SLURM_JOB_ID % 1000))"'
        " --no_python -- "
    )
