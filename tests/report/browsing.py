"""A page in a real browser, by Selenium and Chromium's own protocol: what a person sees and does there."""

import base64
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from patience import wait_for
from PIL import Image
from selenium.webdriver.support.select import Select


class Opened:
    """The report in the browser: what a person sees and does."""

    def __init__(self, driver, path: Path, size: tuple[int, int] = (1280, 800), phone: bool = False, **features: str):
        self.driver = driver
        self.cdp(
            "Emulation.setEmulatedMedia",
            features=[{"name": n.replace("_", "-"), "value": v} for n, v in features.items()],
        )
        self.cdp("Emulation.setDeviceMetricsOverride", width=size[0], height=size[1], deviceScaleFactor=1, mobile=phone)
        self.cdp("Emulation.setTouchEmulationEnabled", enabled=phone)
        for log in ("browser", "performance"):
            driver.get_log(log)
        self.cdp("Network.enable")
        driver.get(path.as_uri())
        self.wait(lambda: self.js("return 'ready' in document.documentElement.dataset"), "the viewer is ready")
        self.settle()

    def cdp(self, command: str, **arguments: object) -> dict:
        return self.driver.execute_cdp_cmd(command, arguments)

    def js(self, script: str, *arguments: object) -> object:
        return self.driver.execute_script(script, *arguments)

    def wait(self, condition: Callable[[], object], what: str, seconds: float = 60) -> object:
        try:
            return wait_for(condition, seconds=seconds, every=0.05)
        except AssertionError as error:
            error.add_note(f"waited for: {what}; console: {self.console()}")
            raise

    def settle(self) -> None:
        """Until Bokeh has painted: two frames, and what was put off to idle times."""
        self.driver.execute_async_script(
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 60)))"
        )

    def picture(self) -> np.ndarray:
        """The viewer as it is painted: grey levels [rows, columns], of its whole frame."""
        self.settle()
        box = self.js(
            "const b = document.getElementById('frame').getBoundingClientRect();"
            "return [b.x + scrollX, b.y + scrollY, b.width, b.height]"
        )
        clip = dict(zip(("x", "y", "width", "height"), box, strict=True)) | {"scale": 1}
        shot = self.cdp("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)["data"]
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(shot))).convert("RGB")).astype(int)

    def grey(self, across: float = 0.5, down: float = 0.5) -> int:
        """The grey level at a place of the viewer, given as shares of its width and height."""
        picture = self.picture()
        pixel = picture[int(down * picture.shape[0]), int(across * picture.shape[1])]
        assert np.ptp(pixel) == 0, f"no grey: {pixel}"
        return int(pixel[0])

    def click(self, selector: str) -> None:
        self.driver.find_element("css selector", selector).click()

    def press(self, *keys: str, on: str = "body") -> None:
        self.driver.find_element("css selector", on).send_keys(*keys)

    def choose(self, selector: str, text: str) -> None:
        Select(self.driver.find_element("css selector", selector)).select_by_visible_text(text)

    def console(self) -> list[str]:
        """Warnings and errors of the page since it was opened, or asked last."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("WARNING", "SEVERE")]

    def requests(self) -> list[str]:
        """Addresses that were asked for since the page was opened, or asked last."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]

    def ranges(self) -> dict[str, float]:
        return self.js(
            "const p = Bokeh.documents[0].get_model_by_name('viewer');"
            "return {left: p.x_range.start, right: p.x_range.end, bottom: p.y_range.start, top: p.y_range.end,"
            " width: p.inner_width, height: p.inner_height}"
        )

    def text(self, selector: str) -> str:
        return self.js("return document.querySelector(arguments[0]).textContent", selector).strip()


def level(hu: float, low: float, high: float) -> int:
    """The grey level of a value in a window."""
    return int(np.clip((hu - low) / (high - low) * 256, 0, 255))
