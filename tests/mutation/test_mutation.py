"""The mutation run itself: which faults it makes, and that it tells those that a test sees from those that none
sees.
"""

import subprocess
import sys
from pathlib import Path

import pytest
from mutants import mutants

SOURCE = '''"""A module."""
LIMIT = 3


def largest(values: list[int] = [0], *, strict=False) -> int:
    """Doc with 1 number."""
    if not values and strict:
        raise ValueError(f"only {len(values) + 1}")
    return max(values[1:]) - abs(LIMIT) if values[0] < 2 else float(values[0, 1])
'''


def lines(source):
    return {(mutant.before(source), mutant.after(source)) for mutant in mutants(source)}


def test_each_kind_of_fault_is_made_and_texts_annotations_and_messages_are_left_alone():
    found = {after for _, after in lines(SOURCE)}
    expected = "return max(values[1:]) - abs(LIMIT) if values[0] < 2 else float(values[0, 1])"
    for old, new in [
        ("values[1:]", "values[2:]"), ("values[1:]", "values[:]"), ("max(values[1:])", "values[1:]"),
        ("abs(LIMIT)", "LIMIT"), ("max(values[1:]) - abs(LIMIT)", "(max(values[1:]) + abs(LIMIT))"),
        ("values[0] < 2", "(values[0] <= 2)"), ("< 2", "< 3"), ("< 2", "< 1"), ("[0, 1]", "[1, 0]"),
        ("[0, 1]", "[1, 1]"),
    ]:  # fmt: skip
        assert expected.replace(old, new) in found
    assert {"LIMIT = 4", "LIMIT = 2", "if (not values or strict):", "if (values) and strict:"} <= {
        line.replace("if values and", "if (values) and") for line in found
    }
    assert "def largest(values: list[int] = [0], *, strict=True) -> int:" in found
    assert not any("Doc" in line or "only" in line or "return values[0, 1]" in line for line in found)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("write(part)", "pass"),
        ("total += step", "pass"),
        ("total += step", "total -= step"),
        ("x = y if a else b", "x = (b if a else y)"),
        ("f(a, b, key=1)", "f(b, a, key=1)"),
        ("f(a, b, key=1)", "f(a, b)"),
        ("x = y.part.ravel()", "x = y.part"),
        ("x = -y", "x = y"),
        ("x = 0.5 * y", "x = 0.625 * y"),
        ("x = a and b and c", "x = (a and c)"),
        ("for x in y: break", "for x in y: pass"),
    ],
)
def test_a_fault_is_what_a_person_may_make(before, after):
    assert (before, after) in lines(before + "\n")


@pytest.mark.parametrize("kept", ["x = float(y)", "x = max(a, b)", "f(a, strict=False)", "x: int"])
def test_what_changes_no_result_is_no_fault(kept):
    assert not {after for _, after in lines(kept + "\n")} & {"x = y", "x = max(b, a)", "f(a)", "f(a, strict=True)"}


def test_the_sample_is_the_same_after_edits_elsewhere():
    edited = "NEW = 1\n\n" + SOURCE.replace("LIMIT = 3", "LIMIT = 3  # of something else")
    orders = [{m.order(17, text) for m in mutants(text) if m.within == "largest"} for text in (SOURCE, edited)]
    assert orders[0] == orders[1] and len(orders[0]) > 15


def test_a_run_tells_faults_that_are_seen_from_those_that_are_not(tmp_path):
    """On a repository with one module, `texture`, one of whose functions is tested, the other is not."""
    files = {
        "src/microsr/__init__.py": "",
        "src/microsr/evaluation/texture.py": "def seen(x):\n    return x + 1\n\n\ndef unseen(x):\n    return x < 9\n",
        "tests/deep/evaluation/test_texture.py": (
            "from microsr.evaluation.texture import seen, unseen\n\n\n"
            "def test_it():\n    assert seen(1) == 2\n    unseen(5)\n"
        ),
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    for name in ("run.py", "mutants.py"):
        (tmp_path / "tests/mutation").mkdir(exist_ok=True)
        (tmp_path / "tests/mutation" / name).write_text((Path(__file__).parent / name).read_text(encoding="utf-8"))
    (tmp_path / "tests/mutation/equivalent.yaml").write_text(
        '- {module: evaluation.texture, before: "return x < 9", after: "return (x <= 9)", reason: 9 is no case here}\n'
        '- {module: other.texture, before: "return x < 9", reason: of another module of that name}\n'
    )
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    done = subprocess.run(
        [sys.executable, "tests/mutation/run.py", "--modules", "evaluation.texture", "--number", "100"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    assert "-    return x < 9\n+    return x < 10\n" in done.stdout and "x <= 9" not in done.stdout
    assert "evaluation.texture: 2 of 4 seen" in done.stdout and "return x + 2" not in done.stdout
    assert (tmp_path / "src/microsr/evaluation/texture.py").read_text(encoding="utf-8") == files[
        "src/microsr/evaluation/texture.py"
    ]
