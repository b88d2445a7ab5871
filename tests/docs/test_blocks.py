"""Every block of code in README.md and docs/ runs: commands in a finished experiment, Python, experiments and case
sheets.

Two things are done to a block: numbers that need a whole scan become small ones (SMALLER), and Snakemake and make say
what they would do instead of doing it. What is not run stands in NOT_RUN, with the reason.
"""

import os
import subprocess
from pathlib import Path

import pages
import pytest
import yaml
from pages import BLOCKS, PAGES, ROOT, Block
from snakemake.utils import update_config

from microsr import config
from microsr.config.sheet import read_sheet

NOT_RUN = {
    ("getting-started.md", "pip install"): "tests/workflow/test_installed.py builds and installs it",
    ("training.md", "python benchmarks/train_step.py"): "a benchmark: it takes minutes, and measures this machine",
    ("training.md", "ONEDNN_MAX_CPU_ISA=AVX2"): "the same benchmark, with other instructions",
    ("training.md", "python benchmarks/patches.py"): "the same, and it needs benchmarks/requirements.txt",
}
"""Page and start of a block that is not run: why."""
OTHERS_TEST = {"extending.md": "tests/extending"}
"""Pages whose blocks have tests of their own, which make what they say."""
SHOWN = {"text", "math", "{eval-rst}", "{toctree}"}
"""Languages that nothing can run: drawings and outputs, formulas, parts of the site."""
SMALLER = {
    "100:110": "0:2",
    "200:260": "0:1",
    "150:350,80:280": "10:20,8:18",
    "array[100]": "array[1]",
    "(hu, 100, ": "(hu, 1, ",
    "array[30]": "array[0]",
    "--seed 1 ": "--seed 1 --clinical_size 48 --clinical_slices 3 --specimen_mm 6 ",
    "/my/data": "data",
}
"""What a page shows of a whole scan, and the same of a small one."""
PRELUDE = """
set -eu
snakemake() {
    if grep -qxF -- "$*" planned; then return; fi  # the same command of another page
    command snakemake "$@" --dry-run --quiet all
    echo "$*" >> planned
}
microsr() {
    if [ "$1" = run ]; then shift; snakemake "$@"; else command microsr "$@"; fi
}
make() { command make --dry-run -C "$ROOT" "$@" > /dev/null; }
tensorboard() { command tensorboard "$@" --inspect > /dev/null; }
"""


def reason(block: Block) -> str | None:
    """Why a block is not run; None: it is."""
    return next(
        (why for (page, start), why in NOT_RUN.items() if block.page == page and block.text.startswith(start)), None
    )


def run_sh(text: str, desk: Path) -> None:
    (desk / "planned").touch()
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment |= {"ROOT": str(ROOT), "PATH": f"{desk}/.venv/bin:{environment['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", PRELUDE + text], cwd=desk, env=environment, encoding="utf-8",
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]


def check_yaml(text: str) -> None:
    """A block is an experiment that is laid over config.yaml, as Snakemake does it."""
    whole = yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8"))
    update_config(whole, yaml.safe_load(text))
    config.load(whole)


def check_sheet(text: str, folder: Path) -> None:
    """A block is a case sheet; the files that it names are there."""
    folder.mkdir()
    sheet = folder / "sheet.tsv"
    sheet.write_text(text, encoding="utf-8")
    for cell in text.replace("\n", "\t").split("\t"):
        if "/" in cell:
            (folder / cell).parent.mkdir(parents=True, exist_ok=True)
            (folder / cell).touch()
    assert read_sheet(config.Cases(sheet=str(sheet), data_root=str(folder)), scan_micro=True)


@pytest.mark.parametrize("page", [page.name for page in PAGES if page.name not in OTHERS_TEST])
def test_the_code_of_a_page_runs(page, request, tmp_path, monkeypatch):
    """In the order of the page: what one block makes, a later one may use."""
    names, given = {}, [block for block in BLOCKS if block.page == page and not reason(block)]
    desk = request.getfixturevalue("desk") if {"sh", "python"} & {block.language for block in given} else None
    for block in given:
        text = block.text
        for large, small in SMALLER.items():
            text = text.replace(large, small)
        try:
            if block.language == "sh":
                run_sh(text, desk)
            elif block.language == "python":
                monkeypatch.chdir(desk)
                exec(compile(text, str(block), "exec"), names)
            elif block.language == "yaml":
                check_yaml(text)
            elif block.language == "tsv":
                check_sheet(text, tmp_path / str(block.line))
            else:
                assert block.language in SHOWN, f"language '{block.language}' is neither run nor known as text"
        except Exception as error:
            error.add_note(f"in the block of {block}: {block.first}")
            raise


def test_each_reason_not_to_run_a_block_is_for_one():
    assert all(sum(b.page == page and b.text.startswith(start) for b in BLOCKS) == 1 for page, start in NOT_RUN)
    assert all((ROOT / folder).is_dir() for page, folder in OTHERS_TEST.items() if (ROOT / "docs" / page).exists())


def test_each_smaller_number_is_for_a_page():
    assert all(any(large in block.text for block in BLOCKS) for large in SMALLER)


@pytest.mark.parametrize(
    "page",
    [page for page in PAGES if page.parent == ROOT / "docs" and page.name not in OTHERS_TEST],
    ids=lambda page: page.name,
)
def test_no_code_hides_in_an_indent(page):
    """Indented blocks have no language, so nothing would run them."""
    lines = pages.prose(page).splitlines()
    starts = [i for i in range(1, len(lines)) if lines[i].startswith("    ") and not lines[i - 1].strip()]
    assert not [lines[i] for i in starts]
