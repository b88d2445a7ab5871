"""Every step of the pipeline is killed at chance moments: what it made is whole or not there, and the same command
makes it.
"""

import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from choosing import taken
from steps import Step, contents, repeat
from workflows import ROOT

from microsr.core.files import remove
from microsr.core.registry.figures import FIGURES
from microsr.core.registry.protocols import PROTOCOLS

pytestmark = pytest.mark.workflow
SAME_COMMAND = {
    "evaluate_images": "evaluate_known",
    "collect_condition": "collect_metrics",
    "summarise_condition": "summarise_metrics",
    "typeset_condition": "typeset_table",
    "scan_again": "simulate_test_case",
    "cut_again": "simulate_training_case",
    "scan_test_case": "scan_training_case",
    "superresolve_draws_again": "superresolve_draws",
    "superresolve_draws_part": "superresolve_part",
    "superresolve_draws_again_part": "superresolve_part",
    "gather_draws": "gather",
}
"""Rules whose command is that of another rule, with less or with other files."""
CHEAP = 1.5
"""A step that takes fewer seconds is killed more often."""
WITHOUT_RESULT = {"all", "figures", "clean_state", "search"}
"""Rules that make nothing."""
NOT_PREPARED = {"validate_metrics", "draw_metrics_validation"}
"""Rules of the validation of the metrics, which takes a minute; its table and figure are written as others are."""


def rules() -> list[str]:
    """Every rule of the workflow."""
    found = set()
    for file in [ROOT / "Snakefile", *(ROOT / "rules").glob("*.smk")]:
        text = file.read_text(encoding="utf-8")
        found |= set(re.findall(r"^\s*(?:use )?rule (?:\w+ as )?(\w+)(?::| with:)", text, re.MULTILINE))
    # Those of a registry have no name in the text.
    found |= {f"draw_{kind}" for kind, figure in FIGURES.items() if ".png" in figure.endings}
    found |= {f"evaluate_{protocol}" for protocol in PROTOCOLS}
    return sorted(found - WITHOUT_RESULT - NOT_PREPARED - set(SAME_COMMAND))


def kill_and_repeat(step: Step, folder: Path, whole: dict, runner, seed: int) -> list[str]:
    """Run a step, kill it a few times, and run it again; what was wrong. whole: what it makes."""
    random = np.random.default_rng(seed)
    straight = runner.run(step, folder)
    if straight.code != 0:
        return [f"fails: {straight.said}"]
    wrong = [
        f"{name} is another one in a folder of its own"
        for name in step.outputs
        if contents(step, folder)[name] != whole[name]
    ]

    def check(how: dict) -> None:
        for name, held in contents(step, folder).items():
            if held != whole[name]:
                wrong.append(f"{name} is there, but not whole, after a kill ({how})")

    # With an earlier result in place, at a change of a file; it may have fewer changes to make than at first.
    for at in random.integers(1, straight.changes + 1, 4 if straight.seconds < CHEAP else 1).tolist():
        while (killed := runner.run(step, folder, kill_at=at)).code == 0:
            at = at // 2 + at % 2
        if killed.code != -signal.SIGKILL:
            wrong.append(f"ended with {killed.code} where it was to be killed at change {at}: {killed.said}")
        check({"kill_at": at})
    for name in step.outputs:  # from nothing, after a share of its time
        remove(folder / name)
    after = random.uniform(0, 0.9) * straight.seconds
    killed = runner.run(step, folder, after=after)
    if killed.code not in (-signal.SIGKILL, 0):  # it may have been faster this time
        wrong.append(f"ended with {killed.code} where it was to be killed after {after} s: {killed.said}")
    check({"after": after})
    return wrong + repeat(step, folder, whole, runner)


@pytest.fixture(scope="module")
def outcomes(request, steps, runner, tmp_path_factory):
    """What was wrong with each step, two at a time."""
    folder = tmp_path_factory.mktemp("killed")
    with ThreadPoolExecutor(2) as pool:

        def start(rule: str, seed: int):
            step = steps.prepare(rule, folder / rule)
            return pool.submit(kill_and_repeat, step, folder / rule, steps.whole(rule), runner, seed)

        yield {rule: start(rule, seed) for seed, rule in enumerate(rules()) if rule in taken(request, "rule")}


@pytest.mark.quarters("rule", rules())
@pytest.mark.parametrize("rule", rules())
def test_a_killed_step_leaves_whole_results_or_none_and_is_repeated_to_the_same_bytes(rule, outcomes):
    assert outcomes[rule].result() == []
