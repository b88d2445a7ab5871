"""Which tests a run takes, what it says of those that it leaves out, and how long it waits."""

import os
import re
import subprocess
import sys
import time
from types import SimpleNamespace

import choosing
import patience
import pytest
from workflows import ROOT

SUITE = """
import pytest
VALUES = list("abcdefgh")

@pytest.mark.quarters("letter", VALUES)
@pytest.mark.parametrize("letter", VALUES)
def test_each(letter, prepared):
    assert letter in prepared

@pytest.fixture(scope="module")
def prepared(request):
    from choosing import taken
    print("prepared", *taken(request, "letter"))
    return taken(request, "letter")

@pytest.mark.nightly
def test_long():
    pass

def test_on_a_cluster():
    pytest.skip("no Slurm: sbatch not found")

def test_of_something_else():
    pytest.skip("no luck")
"""
MARKS = "[pytest]\naddopts = -ra --strict-markers\nmarkers =\n    nightly: x\n    quarters: x\n"


@pytest.fixture
def run(tmp_path):
    """Runs the small suite; what pytest says."""
    (tmp_path / "test_small.py").write_text(SUITE, encoding="utf-8")
    (tmp_path / "pytest.ini").write_text(MARKS, encoding="utf-8")
    environment = os.environ | {
        "PYTHONPATH": str(ROOT / "tests"), "PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }  # fmt: skip
    environment = {name: value for name, value in environment.items() if not name.startswith("PYTEST_XDIST")}

    def said(*options):
        command = [sys.executable, "-m", "pytest", "-p", "choosing", "-p", "no:cacheprovider", "-v", "-s", *options]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8", check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return said


def test_what_is_left_out_is_said_with_how_to_have_it(run):
    said = run("--quarter", "1")
    assert set(re.findall(r"test_each\[(\w)\]", said)) == {"b", "f"} and "test_long" not in said
    assert re.findall(r"prepared ([a-h ]+)", said) == ["b f"]
    assert "quarter 1 of the rules" in said.partition("collect")[0]
    end = said[said.index(" LEFT OUT ") :]
    assert "1 tests, no Slurm: as root on Debian: apt install slurmctld slurmd slurm-client munge\n" in end
    assert "1 tests for other reasons, listed above\n" in end and "no real volumes" not in end
    assert re.search(r"\n7 nightly tests \(\S+ 7\): make test-all, or pytest --nightly\n", end)
    assert "this run had --quarter 1" in end


def test_without_a_choice_the_quarter_is_the_days_in_each_process_of_a_run(run):
    before = time.time()
    said = run("-p", "xdist", "-n", "2")
    side = int(re.search(r"this run had --quarter (\d)", said)[1])
    assert side in {int(moment // 86_400) % 4 for moment in (before, time.time())}
    assert set(re.findall(r"test_each\[(\w)\]", said)) == {"abcd"[side], "efgh"[side]} and "test_long" not in said
    end = said[said.index(" LEFT OUT ") :]
    assert "1 tests, no Slurm: " in end and re.search(r"\n7 nightly tests \(\S+ 7\): ", end)


def test_four_quarters_are_all_and_a_nightly_run_takes_them_at_once(run):
    def taken(**options):
        config = SimpleNamespace(option=SimpleNamespace(**options))
        return [place for place in range(10) if choosing.takes(config, place)]

    quarters = [taken(nightly=False, quarter=number) for number in range(choosing.QUARTERS)]
    assert quarters == [[0, 4, 8], [1, 5, 9], [2, 6], [3, 7]]
    assert taken(nightly=True, quarter=1) == list(range(10))
    said = run("--nightly")
    assert "test_long PASSED" in said and set(re.findall(r"test_each\[(\w)\]", said)) == set("abcdefgh")
    assert re.findall(r"prepared ([a-h ]+)", said) == ["a b c d e f g h"]
    assert "nightly tests (" not in said[said.index(" LEFT OUT ") :]


def test_limits_grow_with_the_slowness_of_the_machine_and_never_shrink(monkeypatch):
    monkeypatch.setattr(patience, "REFERENCE", 1e9)
    patience.slowness.cache_clear()
    assert patience.limit(7) == 7
    monkeypatch.setattr(patience, "REFERENCE", 1e-3)
    patience.slowness.cache_clear()
    assert patience.limit(7) > 70
    patience.slowness.cache_clear()


def test_waiting_ends_with_what_came_or_says_that_it_hangs_or_ended(monkeypatch):
    monkeypatch.setattr(patience, "slowness", lambda: 1.0)
    answers = iter([None, "", "here"])
    assert patience.wait_for(lambda: next(answers)) == "here"
    with pytest.raises(AssertionError, match="nothing came of it"):
        patience.wait_for(lambda: False, seconds=0.05)
    with pytest.raises(AssertionError, match="it ended before"):
        patience.wait_for(lambda: False, running=lambda: False)
