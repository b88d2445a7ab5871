"""The report of small made-up results, and a real headless Chromium that opens it as a file."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from browsing import Opened
from patience import limit
from selenium import webdriver
from small_results import Results

PROGRAM, DRIVER = ("chromium", "chromium-browser", "google-chrome"), "chromedriver"
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--no-first-run", "--force-color-profile=srgb", "--force-device-scale-factor=1",
    "--hide-scrollbars",
)  # fmt: skip


@pytest.fixture
def results(tmp_path: Path) -> Callable[..., Results]:
    """Gives the results of a small experiment; keywords are those of Results."""
    return lambda **facts: Results(tmp_path / "results", **facts)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of two cases with truth."""
    return Results(tmp_path_factory.mktemp("page"), cases=("test1", "test2")).report()


@pytest.fixture(scope="session")
def chromium() -> Iterator[object]:
    """A headless Chromium without network, driven by Selenium; without it, tests are skipped, but fail in CI."""
    program = next(filter(None, map(shutil.which, PROGRAM)), None)
    driver = shutil.which(DRIVER)
    if program is None or driver is None:
        reason = f"no browser: {PROGRAM[0]} and {DRIVER} are needed (Debian: apt install chromium chromium-driver)"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(reason)
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    driver.set_script_timeout(limit(60))
    yield driver
    driver.quit()


@pytest.fixture
def opened(chromium, page: Path) -> Opened:
    """The report of two cases, freshly opened on a desktop."""
    return Opened(chromium, page)
