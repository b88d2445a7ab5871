"""Whether this commit can be released: the checklist of CONTRIBUTING.md, each point as a line.

    python .ci/release_check.py [TESTED]        (make release-check TESTED=<commit>)

TESTED: the commit on which `.ci/run test-all` was green; it takes hours, so it is said, not run. Exit code 1 if a point
fails.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
PYTHON = sys.executable


class NotHeldError(Exception):
    """A point does not hold; why."""


def said(*command: str | Path, **environment: str) -> str:
    """What a command says; a point fails with its last lines if it does."""
    done = subprocess.run(
        list(map(str, command)), cwd=ROOT, env=os.environ | environment, encoding="utf-8", stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    if done.returncode:
        raise NotHeldError(done.stdout.strip()[-1500:])
    return done.stdout


def read(name: str) -> str:
    """A file of the repository."""
    return (ROOT / name).read_text(encoding="utf-8")


def facts() -> tuple[dict[str, str], str, str]:
    """The version as each file has it, and the dates of CHANGELOG.md and CITATION.cff."""
    citation = yaml.safe_load(read("CITATION.cff"))
    newest = re.search(r"^## \[(.+?)\] - (\S+)$", read("CHANGELOG.md"), re.MULTILINE)
    versions = {
        "pyproject.toml": tomllib.loads(read("pyproject.toml"))["project"]["version"],
        "src/microsr/__init__.py": re.search(r'__version__ = "(.+)"', read("src/microsr/__init__.py"))[1],
        "CITATION.cff": str(citation["version"]),
        "CHANGELOG.md": newest[1],
        "README.md": re.search(r"microsr-([\d.]+)-py3", read("README.md"))[1],
        "docs/getting-started.md": re.search(r"microsr-([\d.]+)-py3", read("docs/getting-started.md"))[1],
    }
    return versions, newest[2], str(citation.get("date-released", "none"))


def check_versions() -> str:
    """One version everywhere."""
    versions = facts()[0]
    if len(set(versions.values())) > 1:
        raise NotHeldError(", ".join(f"{name} says {version}" for name, version in versions.items()))
    return versions["CHANGELOG.md"]


def check_dates() -> str:
    """The newest section of the changelog has a date, and the citation the same."""
    _, changes, citation = facts()
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", changes):
        raise NotHeldError(f"CHANGELOG.md says '{changes}' where the date of the release belongs")
    if changes != citation:
        raise NotHeldError(f"CHANGELOG.md says {changes}, date-released in CITATION.cff {citation}")
    return changes


def check_commit() -> str:
    """All is committed, and the version has no tag yet."""
    if changed := said("git", "status", "--porcelain"):
        raise NotHeldError(f"not committed:\n{changed.rstrip()}")
    tag = f"v{facts()[0]['pyproject.toml']}"
    if said("git", "tag", "--list", tag).strip():
        raise NotHeldError(f"the tag {tag} is there already")
    return f"tag it {tag}"


def check_lock() -> str:
    """The environment is that of the lock, its packages go together, and envs/ have the same versions."""
    lock = {line for line in read("requirements.lock").splitlines() if "==" in line}
    has = {re.sub(r"\+cpu$", "", line) for line in said(PYTHON, "-m", "pip", "freeze", "--all").splitlines()}
    if lacking := sorted(lock - has):
        raise NotHeldError(f"not as installed: {', '.join(lacking[:5])}; make env, or make lock")
    said(PYTHON, "-m", "pip", "check")
    said(PYTHON, "-m", "pytest", "-q", "-n", "0", "tests/workflow/test_style.py", "-k", "lock or conda or package")
    return f"{len(lock)} packages"


def check_tests(tested: str | None) -> str:
    """The tests were green on this commit, as whoever releases says."""
    commit = said("git", "rev-parse", "HEAD").strip()
    if not tested or not commit.startswith(tested):
        raise NotHeldError(
            f"say that .ci/run test-all was green on this commit: make release-check TESTED={commit[:12]}"
        )
    return f"said of {tested}"


def check_tests_of(*names: str) -> Callable[[], str]:
    """A point that tests hold."""
    return lambda: said(PYTHON, "-m", "pytest", "-q", "-n", "0", *names, CI="true").strip().splitlines()[-1]


def check_docs() -> str:
    """The site builds without a warning."""
    with tempfile.TemporaryDirectory() as folder:
        said(PYTHON, "-m", "sphinx", "-W", "--keep-going", "-q", "docs", folder)
    return "no warning"


POINTS: dict[str, Callable[[], str]] = {
    "one version everywhere": check_versions,
    "the changelog is headed and dated, and the citation too": check_dates,
    "all is committed, and the tag is free": check_commit,
    "the lock is current": check_lock,
    "CITATION.cff is valid": check_tests_of("tests/unit/test_front_matter.py"),
    "a crate is valid": check_tests_of("tests/unit/report/test_crate.py"),
    "wheel and source distribution build, install and run": check_tests_of("tests/workflow/test_installed.py"),
    "the documentation builds": check_docs,
    "the tests are green": lambda: check_tests(sys.argv[1] if len(sys.argv) > 1 else None),
}


def main() -> int:
    """Walk through the points; how many failed."""
    failed = 0
    for point, check in POINTS.items():
        try:
            print(f"ok      {point}: {check()}", flush=True)
        except NotHeldError as error:
            failed += 1
            print(f"FAILED  {point}: {error}", flush=True)
    print("ready to be released" if not failed else f"{failed} of {len(POINTS)} points failed: not to be released yet")
    return failed


if __name__ == "__main__":
    sys.exit(bool(main()))
