"""A Snakemake that is forked from a loaded one says and does what one does that starts from nothing, and leaves nothing
to the next one.
"""

import os
import re
import signal
import threading
import time

import pytest
from forked import Forking
from workflows import Workflow, environment

SMOKE = ("--configfile", "experiments/smoke.yaml")
SOUND = ("-n", "-p", *SMOKE)
TIMES = re.compile(r"(?m)^\[\w{3} \w{3} .*\]$|^  (Date|Workflow ID|Command): .*$|^.*\bjobid: \d+$")
"""What two runs differ in."""


@pytest.fixture(scope="module")
def fork():
    """Runs Snakemake in a fork, with an environment; its exit code and what it said."""
    forking = Forking(environment())

    def run(workflow, *arguments, **variables):
        output = workflow.folder.parent / "said.txt"
        code = forking.run(list(arguments), workflow.folder, environment() | variables, output)
        return code, output.read_text(encoding="utf-8")

    yield run
    forking.end()


def told(text):
    """The words of each line, in no order, as jobs and files come in that of sets; and the lines likewise."""
    return sorted(" ".join(sorted(re.split(r"[ ,;{}]+", line))) for line in TIMES.sub("", text).splitlines())


@pytest.mark.parametrize(
    "arguments",
    [
        SOUND,
        ("-n", "--config", "train={epoch: 3}"),
        ("--no-such-flag",),
        ("--cores", "1", "results/nothing", *SMOKE),
    ],
    ids=["plan", "refused setting", "refused flag", "refused target"],
)
def test_a_fork_says_what_a_process_of_its_own_says(arguments, workflow, fork):
    code, said = fork(workflow, *arguments)
    expected = workflow.started(*arguments)
    assert code == expected.returncode
    assert told(said) == told(expected.stdout) and said


def test_a_job_of_a_fork_runs_with_the_output_and_the_environment_of_it(workflow, fork):
    with (workflow.folder / "Snakefile").open("a") as snakefile:
        snakefile.write("\n\nrule show:\n    output: 'shown.txt'\n    shell: 'echo said; env > {output}; exit 3'\n")
    code, said = fork(workflow, "--cores", "1", "shown.txt", "--notemp", *SMOKE, MARK="here")
    assert code == 1 and "said\n" in said and "Error in rule show" in said
    (workflow.folder / "Snakefile").write_text(
        (workflow.folder / "Snakefile").read_text(encoding="utf-8").replace("; exit 3", ""), encoding="utf-8"
    )
    code, said = fork(workflow, "--cores", "1", "shown.txt", *SMOKE, MARK="here")
    shown = (workflow.folder / "shown.txt").read_text(encoding="utf-8").splitlines()
    assert code == 0 and "MARK=here" in shown
    assert not [line for line in shown if line.startswith("VIRTUAL_ENV=")]


def test_nothing_of_a_run_is_left_to_the_next_one(workflow, fork, tmp_path):
    """Another folder, other code, another environment and a failure come in between."""
    before = fork(workflow, *SOUND)
    other = Workflow(tmp_path / "other")
    other.folder.mkdir()
    (other.folder / "Snakefile").write_text(
        "import os, sys, microsr\nos.environ['LEFT'] = 'x'\nsys.modules['microsr.left'] = microsr\n"
        "print('LEFT' in os.environ, 'microsr.left' in sys.modules)\nsys.exit('error: on purpose')\n"
    )
    code, said = fork(other, "-n", SEEN="1")
    assert code == 1 and "error: on purpose" in said
    after = fork(workflow, *SOUND)
    assert after[0] == before[0] == 0 and told(after[1]) == told(before[1])
    (other.folder / "Snakefile").write_text(
        "import os, sys\nprint('LEFT' in os.environ, 'SEEN' in os.environ, 'microsr' in sys.modules)\nsys.exit('error: "
        "seen')\n"
    )
    assert "False False False" in fork(other, "-n")[1]


def test_a_run_that_is_killed_or_given_up_spoils_no_other(tmp_path):
    other = Workflow(tmp_path)
    (tmp_path / "Snakefile").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    forking, output = Forking(environment()), tmp_path / "said"
    assert forking.run(["-n"], other.folder, environment(), output) == -signal.SIGKILL
    (tmp_path / "Snakefile").write_text("import time\nopen('begun', 'w').close()\ntime.sleep(10000)\n")

    def give_up():
        while not (tmp_path / "begun").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=give_up).start()
    with pytest.raises(KeyboardInterrupt):
        forking.run(["-n"], other.folder, environment(), output)
    (tmp_path / "Snakefile").write_text("import sys\nprint('sound again', sys.path[0])\nsys.exit(7)\n")
    assert forking.run(["-n"], other.folder, environment(), output) == 7
    assert f"sound again {tmp_path}" in output.read_text(encoding="utf-8")
    forking.end()
