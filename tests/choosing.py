"""Which tests a run takes, and what it says about the others.

    pytest              all but those that are nightly, and a quarter of the rules under kills and full disks, of the
                        kills of a training and of the damage to its states
    pytest --nightly    all
    pytest --quarter 2  with the third quarter; without, each day (UTC) has the next one

A test that lacks data, Slurm or a browser is skipped, or fails where CI is set. At its end a run says what it left out
and why.
"""

import time
from collections import Counter

import pytest

QUARTERS = 4
HOW = {
    "no real volumes": "put the real volumes into ../shared/data beside the repository",
    "no Slurm": "as root on Debian: apt install slurmctld slurmd slurm-client munge",
    "no browser": "on Debian: apt install chromium chromium-driver",
}
"""Beginnings of reasons to skip, and how to have those tests."""
NIGHTLY, SIDE = "left_out_as_nightly", "quarter"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("microsr")
    group.addoption("--nightly", action="store_true", help="all tests, also those that are nightly")
    group.addoption(
        "--quarter", type=int, choices=range(QUARTERS), help="which rules, kills and spoilt inputs; by itself the day's"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Choose the quarter, which processes of pytest-xdist are then given as an option."""
    if config.option.quarter is None:
        config.option.quarter = int(time.time() // 86_400) % QUARTERS


def pytest_report_header(config: pytest.Config) -> str:
    return f"microsr: {_what(config)}"


def _what(config: pytest.Config) -> str:
    if config.option.nightly:
        return "all tests, nightly ones included"
    quarter = config.option.quarter
    return f"without nightly tests; quarter {quarter} of the rules, kills and spoilt inputs (--quarter {quarter})"


def takes(config: pytest.Config, place: int) -> bool:
    """Whether a run takes what is in this place of a list of which each run takes a quarter."""
    return config.option.nightly or place % QUARTERS == config.option.quarter


def taken(request: pytest.FixtureRequest, name: str) -> list:
    """The values of a parameter with which the tests of a module are run; for a fixture that prepares them all at
    once.
    """
    items = [item for item in request.session.items if item.path == request.path and hasattr(item, "callspec")]
    return list(dict.fromkeys(item.callspec.params[name] for item in items if name in item.callspec.params))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is nightly: whole tests by their mark, and three quarters of those that are marked `quarters`."""
    left = []
    for item in items:
        quarters = item.get_closest_marker("quarters")
        if quarters is not None and isinstance(item, pytest.Function):
            name, values = quarters.args
            here = takes(config, values.index(item.callspec.params[name]))
        else:
            here = config.option.nightly or item.get_closest_marker("nightly") is None
        if not here:
            left.append(item)
    if left:
        gone = set(left)
        items[:] = [item for item in items if item not in gone]
        config.hook.pytest_deselected(items=left)
    found = Counter(item.path.parent.name for item in left)
    setattr(config, NIGHTLY, found)
    if hasattr(config, "workeroutput"):
        config.workeroutput[NIGHTLY] = dict(found)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error) -> None:
    """Every worker has left out the same tests."""
    if NIGHTLY in getattr(node, "workeroutput", {}):
        setattr(node.config, NIGHTLY, Counter(node.workeroutput[NIGHTLY]))


def pytest_terminal_summary(terminalreporter, config: pytest.Config) -> None:
    """Say what was left out, and how to have it."""
    lines = []
    skipped = [
        report.longrepr[2] for report in terminalreporter.stats.get("skipped", []) if isinstance(report.longrepr, tuple)
    ]
    for reason, how in HOW.items():
        if number := sum(f"Skipped: {reason}" in text for text in skipped):
            lines.append(f"{number} tests, {reason}: {how}")
    if number := sum(not any(f"Skipped: {reason}" in text for reason in HOW) for text in skipped):
        lines.append(f"{number} tests for other reasons, listed above")
    if nightly := getattr(config, NIGHTLY, None):
        places = ", ".join(f"{folder} {number}" for folder, number in sorted(nightly.items()))
        lines.append(f"{sum(nightly.values())} nightly tests ({places}): make test-all, or pytest --nightly")
        side = config.option.quarter
        lines.append(
            "among them three quarters of the rules under kills and full disks, of the kills of a training and of the "
            f"damage to its states; this run had --quarter {side}, as for spoilt inputs"
        )
    if lines:
        terminalreporter.section("LEFT OUT", yellow=True, bold=True)
        for line in lines:
            terminalreporter.line(line, yellow=True)
