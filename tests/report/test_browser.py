"""The report in a real browser: what is painted, what clicks and keys do, what it asks of the network (nothing), on a
desk and a phone.
"""

import itertools
import time

import numpy as np
import pytest
from browsing import Opened, level
from selenium.webdriver.common.keys import Keys
from small_results import BODY, CLINICAL, METHODS, SD, TRUTH

LUNG, SOFT, FIGURE = (-1350, 150), (-160, 240), (-1000, 200)
CONTROLS = {"button", "radio", "checkbox", "slider", "combobox", "link", "DisclosureTriangle", "application"}


def near(found: int, wanted: int) -> bool:
    return abs(found - wanted) <= 2


def test_the_first_screen_holds_the_comparison_the_table_and_the_warning(opened):
    assert "Not for diagnosis: an SR image shows what is plausible, not what is there" in opened.text("header")
    for selector in (".warning", "#frame", "#controls fieldset", ".beside table", "#divider"):
        box = opened.js(
            "const b = document.querySelector(arguments[0]).getBoundingClientRect(); return [b.top, b.left]", selector
        )
        assert 0 <= box[0] < 800 and 0 <= box[1] < 1280, selector
    bottom = opened.js("return document.getElementById('frame').getBoundingClientRect().bottom")
    assert bottom <= 800, "the whole image is seen without scrolling"


def test_it_begins_with_the_clinical_ct_beside_the_first_method_in_the_lung_window(opened):
    assert near(opened.grey(0.4), level(CLINICAL, *LUNG))
    assert near(opened.grey(0.6), level(METHODS["proposed"], *LUNG))
    assert opened.text("#left-name") == "Clinical CT" and opened.text("#right-name") == "Proposed"


def test_nothing_is_asked_of_the_network_and_the_console_is_silent(opened, page):
    for selector in ("[name=mode][value=blink]", "#blink", "#blink", "[name=mode][value=one]", "#in", "#whole"):
        opened.click(selector)
    opened.choose("#view", "test2 (<made> & up)")
    opened.settle()
    asked = [address for address in opened.requests() if not address.startswith(("data:", "blob:"))]
    assert asked == [page.as_uri()]
    assert opened.console() == []


def test_the_policy_of_the_page_keeps_scripts_from_the_network(opened):
    opened.console()
    refused = opened.driver.execute_async_script(
        "const done = arguments[0]; fetch('http://127.0.0.1:9/').then(() => done(false), () => done(true))"
    )
    assert refused and any("Content Security Policy" in line for line in opened.console())


@pytest.mark.parametrize(
    ("key", "hu"),
    [
        ("1", CLINICAL),
        ("2", METHODS["proposed"]),
        ("3", METHODS["bicubic"]),
        ("4", METHODS["cyclegan"]),
        ("5", TRUTH),
    ],
)
def test_a_number_key_shows_an_image(opened, key, hu):
    opened.press(key)
    assert near(opened.grey(0.4), level(hu, *LUNG)) and near(opened.grey(0.6), level(hu, *LUNG))
    assert opened.js("return document.querySelector('[name=image]:checked').value") == str(int(key) - 1)
    assert opened.text("#said") == opened.text("#left-name")


def test_a_click_on_an_image_s_name_shows_it(opened):
    opened.click("[name=mode][value=one]")
    opened.click("#images label:nth-child(5)")
    assert opened.text("#left-name") == "Truth"
    assert near(opened.grey(), level(TRUTH, *LUNG))


@pytest.mark.parametrize(
    ("name", "key", "window"), [("Soft tissue", "s", SOFT), ("Lung", "l", LUNG), ("Figure", "f", FIGURE)]
)
def test_a_window_is_set_by_button_and_by_key(opened, name, key, window):
    opened.press("3")
    other = opened.js(
        "return [...document.querySelectorAll('#presets button')].find(b => b.textContent !== arguments[0])", name
    )
    for act in (
        lambda: opened.js(
            "[...document.querySelectorAll('#presets button')].find(b => b.textContent === arguments[0]).click()", name
        ),
        lambda: opened.press(key),
    ):
        other.click()
        act()
        assert opened.js("const w = Bokeh.documents[0].get_model_by_name('window'); return [w.low, w.high]") == list(
            window
        )
        assert near(opened.grey(), level(METHODS["bicubic"], *window))
        pressed = opened.js(
            "return [...document.querySelectorAll('#presets [aria-pressed=true]')].map(b => b.textContent)"
        )
        assert pressed == [name]


def test_the_sliders_of_the_window_change_level_and_width(opened):
    opened.press("3")
    opened.press(Keys.ARROW_RIGHT * 10, on="#level")
    assert opened.text("#level-shown") == "−500 HU" and near(opened.grey(), level(METHODS["bicubic"], -1250, 250))
    opened.press(Keys.HOME, on="#width")
    assert opened.text("#width-shown") == "50 HU" and near(opened.grey(), 128)


def test_the_divider_is_moved_by_its_slider_and_by_arrow_keys(opened):
    for hu, place in ((CLINICAL, 0.7), (METHODS["proposed"], 0.3)):
        opened.press(Keys.END if place == 0.7 else Keys.HOME, on="#divider")
        assert near(opened.grey(place), level(hu, *LUNG))
    opened.press(Keys.ARROW_RIGHT * 60, on="#divider")
    assert opened.js("return document.getElementById('divider').value") == "300"
    assert near(opened.grey(0.27), level(CLINICAL, *LUNG)) and near(
        opened.grey(0.33), level(METHODS["proposed"], *LUNG)
    )
    opened.press(Keys.ARROW_RIGHT * 10, on="#frame")
    assert opened.js("return document.getElementById('divider').value") == "500"


def test_a_line_marks_where_the_divider_is_and_only_there(opened):
    opened.press(Keys.HOME, Keys.ARROW_RIGHT * 60, on="#divider")
    picture = opened.picture()
    coloured = np.ptp(picture, axis=2) > 60
    columns = np.flatnonzero(coloured.mean(axis=0) > 0.7) / picture.shape[1]
    assert len(columns) and np.all(np.abs(columns - 0.3) < 0.01)
    opened.press("1")
    assert not (np.ptp(opened.picture(), axis=2) > 60).any()


def test_left_and_right_of_the_divider_can_be_chosen(opened):
    opened.choose("#first", "CycleGAN")
    opened.choose("#second", "Truth")
    assert near(opened.grey(0.4), level(METHODS["cyclegan"], *LUNG)) and near(opened.grey(0.6), level(TRUTH, *LUNG))
    assert (opened.text("#left-name"), opened.text("#right-name")) == ("CycleGAN", "Truth")


def test_draws_flicker_through_one_another_at_the_reader_s_pace(chromium, results):
    opened = Opened(chromium, results(draws=(-800, -600, -400)).report())
    opened.click("[name=mode][value=draws]")
    assert opened.text("#left-name") == "Draw 1" and near(opened.grey(), level(-800, *LUNG)), "not by itself"
    opened.press("n")
    assert opened.text("#left-name") == "Draw 2" and near(opened.grey(), level(-600, *LUNG))
    opened.press(Keys.HOME, on="#pace")
    assert opened.text("#pace-shown") == "0.4 s"
    opened.click("#blink")
    seen = set()
    opened.wait(lambda: seen.add(opened.text("#left-name")) or len(seen) == 3, "the other draws")
    assert seen == {"Draw 1", "Draw 2", "Draw 3"} and opened.text("#blink") == "Stop flickering"
    opened.click("#blink")
    assert opened.text("#blink") == "Start flickering"


def test_the_sd_has_a_window_of_its_own_under_the_divider_too(chromium, results):
    opened = Opened(chromium, results(draws=(-800, -600)).report())
    opened.choose("#second", "SD")
    assert near(opened.grey(0.6), level(SD, 0, 300)) and near(opened.grey(0.4), level(CLINICAL, *LUNG))
    opened.press("s")
    assert near(opened.grey(0.6), level(SD, 0, 300)) and near(opened.grey(0.4), level(CLINICAL, *SOFT))


def test_without_draws_nothing_offers_to_flicker_them(opened):
    assert not opened.js("return document.querySelector('[name=mode][value=draws]').checkVisibility()")
    opened.press("n")
    assert opened.text("#left-name") == "Clinical CT"


def test_blinking_alternates_two_images_until_it_is_stopped(opened):
    assert opened.js("return document.getElementById('blink').getAttribute('aria-pressed')") == "false", "not by itself"
    opened.press("b")
    seen = set()
    opened.wait(lambda: seen.add(opened.text("#left-name")) or len(seen) == 2, "the other image")
    assert seen == {"Clinical CT", "Proposed"}
    opened.press("b")
    assert opened.js("return document.getElementById('blink').getAttribute('aria-pressed')") == "false"
    name = opened.text("#left-name")
    time.sleep(1.6)
    assert opened.text("#left-name") == name
    assert near(opened.grey(), level({"Clinical CT": CLINICAL, "Proposed": METHODS["proposed"]}[name], *LUNG))


def test_who_asks_for_less_motion_changes_the_image_by_hand(chromium, page):
    opened = Opened(chromium, page, prefers_reduced_motion="reduce")
    opened.press("b")
    assert opened.text("#left-name") == "Proposed"
    time.sleep(1.6)
    assert opened.text("#left-name") == "Proposed"
    opened.click("#blink")
    assert opened.text("#left-name") == "Clinical CT" and near(opened.grey(), level(CLINICAL, *LUNG))


def test_zoom_and_pan_by_buttons_keys_and_wheel_keep_equal_scales(opened):
    def scale():
        r = opened.ranges()
        x, y = (r["right"] - r["left"]) / r["width"], (r["top"] - r["bottom"]) / r["height"]
        assert x == pytest.approx(y, rel=1e-3)
        return x

    whole = scale()
    first = opened.ranges()
    assert first["left"] <= 1e-6 and first["bottom"] <= 1e-6
    opened.click("#in")
    assert scale() == pytest.approx(whole / 1.5)
    opened.press("-")
    assert scale() == pytest.approx(whole)
    left = opened.ranges()["left"]
    opened.press("1")
    opened.press(Keys.ARROW_RIGHT, on="#frame")
    assert opened.ranges()["left"] > left
    opened.press("0")
    assert opened.ranges() == pytest.approx(first)
    box = opened.js(
        "const b = document.getElementById('frame').getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height "
        "/ 2]"
    )
    for kind, more in (("mouseMoved", {}), ("mouseWheel", {"deltaX": 0, "deltaY": -240})):
        opened.cdp("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], **more)
    opened.wait(lambda: scale() < whole * 0.95, "the wheel zooms")
    before = opened.ranges()
    for kind, x, buttons in (
        ("mousePressed", 0, 1),
        ("mouseMoved", 30, 1),
        ("mouseMoved", 80, 1),
        ("mouseReleased", 80, 0),
    ):
        opened.cdp(
            "Input.dispatchMouseEvent", type=kind, x=box[0] + x, y=box[1], button="left", buttons=buttons, clickCount=1
        )
    opened.wait(lambda: opened.ranges()["left"] < before["left"], "dragging pans")
    opened.driver.find_element("css selector", "#whole").click()
    assert scale() == pytest.approx(whole)


def test_the_scale_bar_is_as_long_as_it_says(opened):
    """The white bar above the words, measured in the picture, against the figure's millimetres per pixel."""
    opened.press("s")  # all is dark in the lung
    picture = opened.picture()
    corner = picture[int(0.8 * picture.shape[0]) :, picture.shape[1] // 2 :]
    white = (corner > 250).all(axis=2)
    rows = [row for row in white if row.any() and np_runs(row)[0] > 25]
    assert rows, "no bar"
    units = opened.js(
        "return Bokeh.documents[0].get_model_by_name('viewer').center.map(one => one.unit).filter(unit => unit !== "
        "undefined)"
    )
    assert units == ["mm"], "one unit of the figure's axes"
    r = opened.ranges()
    found = max(np_runs(row)[0] for row in rows) * (r["right"] - r["left"]) / r["width"]
    assert min(abs(found / length - 1) for length in (1, 2, 5)) < 0.06, found


def np_runs(row) -> list[int]:
    """Lengths of the runs of true values, longest first."""
    lengths, run = [], 0
    for value in [*row, False]:
        if value:
            run += 1
        elif run:
            lengths.append(run)
            run = 0
    return sorted(lengths, reverse=True) or [0]


def test_hu_and_place_are_read_where_one_points(opened):
    box = opened.js(
        "const b = document.getElementById('frame').getBoundingClientRect(); return [b.x, b.y, b.width, b.height]"
    )
    opened.cdp("Input.dispatchMouseEvent", type="mouseMoved", x=box[0] + box[2] / 2, y=box[1] + box[3] / 2)
    opened.wait(lambda: "mm" in opened.text("#readout"), "the readout is filled")
    r = opened.ranges()
    x = (r["left"] + r["right"]) / 2
    assert opened.text("#readout").startswith(f"x {x:.1f}, y ")
    for name, hu in (
        ("Clinical CT", CLINICAL),
        ("Proposed", -700),
        ("Bicubic", -500),
        ("CycleGAN", -300),
        ("Truth", TRUTH),
    ):
        assert f"{name} {hu}".replace("-", "−") in opened.text("#readout")
    opened.cdp("Input.dispatchMouseEvent", type="mouseMoved", x=box[0] + 3, y=box[1] + box[3] / 2)
    opened.wait(lambda: f"Truth {BODY}" in opened.text("#readout") or "Point" in opened.text("#readout"), "it follows")


def test_another_case_can_be_chosen(opened):
    opened.press("2")
    opened.choose("#view", "test2 (<made> & up)")
    opened.wait(lambda: opened.text("#where").startswith("test2 (<made> & up)"), "the case changes")
    assert near(opened.grey(), level(METHODS["proposed"] - 10, *LUNG))


def test_single_keys_can_be_switched_off(opened):
    opened.press("3")
    opened.click(".keys summary")
    opened.click("#keys")
    opened.press("5")
    assert opened.text("#left-name") == "Bicubic"


def test_every_control_has_a_name_and_every_picture_a_description(opened):
    opened.js("document.querySelectorAll('details').forEach(d => d.open = true)")
    for mode in ("one", "divider", "blink"):
        opened.click(f"[name=mode][value={mode}]")
        nodes = [node for node in opened.cdp("Accessibility.getFullAXTree")["nodes"] if not node.get("ignored")]
        found = [(node["role"]["value"], node.get("name", {}).get("value", "").strip()) for node in nodes]
        assert not [role for role, name in found if role in CONTROLS and not name]
        assert {"radio", "slider", "button", "link"} <= {role for role, _ in found}
    pictures = opened.js("return [...document.querySelectorAll('img')].map(i => i.alt)")
    assert pictures and all(pictures)
    assert opened.js("return document.documentElement.lang") == "en"
    assert opened.js(
        "return [...document.querySelectorAll('table')].every(t => t.caption && t.caption.textContent.trim())"
    )
    levels = opened.js("return [...document.querySelectorAll('h1,h2,h3,h4')].map(h => Number(h.tagName[1]))")
    assert levels[0] == 1 and all(b - a <= 1 for a, b in itertools.pairwise(levels))


def test_the_keyboard_reaches_the_viewer_and_its_focus_is_seen(opened):
    reached = []
    opened.press(Keys.TAB)
    assert opened.js("return document.activeElement.className") == "skip"
    for _ in range(40):
        reached.append(opened.js("return document.activeElement.id || document.activeElement.name"))
        opened.driver.switch_to.active_element.send_keys(Keys.TAB)
    assert {"mode", "first", "second", "level", "width", "in", "out", "whole", "frame", "divider"} <= set(reached)
    opened.js("document.getElementById('first').focus()")
    assert opened.js("return getComputedStyle(document.getElementById('first')).outlineStyle") == "solid"


@pytest.mark.parametrize("width", [390, 360])
def test_on_a_phone_nothing_is_wider_than_the_screen_and_the_controls_work(chromium, page, width):
    opened = Opened(chromium, page, size=(width, 844), phone=True)
    opened.js("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert opened.js("return document.documentElement.scrollWidth") == width
    assert opened.js("return document.getElementById('frame').getBoundingClientRect().bottom") < 844
    small = opened.js(
        "return [...document.querySelectorAll('#controls button, #controls select')].filter(e => e.offsetHeight && "
        "e.offsetHeight < 40).length"
    )
    assert small == 0, "fingers need room"
    opened.press("4")
    assert near(opened.grey(), level(METHODS["cyclegan"], *LUNG))
    assert opened.console() == []


@pytest.mark.parametrize(
    "facts",
    [
        {"truth": False, "protocols": ("no_reference",), "figures": ("comparison", "domain")},
        {"methods": {"bicubic": -500}, "figures": ("comparison", "validation")},
        {"methods": {f"m{n}": -800 + 50 * n for n in range(11)}, "cases": tuple(f"c{n}" for n in range(7))},
    ],
)
def test_other_experiments_are_shown_as_well(chromium, results, facts):
    """Without truth, without anything trained, with many cases and methods."""
    made = results(**facts)
    opened = Opened(chromium, made.report())
    assert opened.console() == []
    last = len(made.methods) + made.truth
    assert opened.js("return document.querySelectorAll('[name=image]').length") == last + 1
    opened.press("2")
    first = next(iter(made.methods.values()))
    assert near(opened.grey(), level(first, *LUNG))
    assert opened.js("return document.documentElement.scrollWidth") <= 1280


def test_two_fingers_zoom_the_image_and_not_the_page(chromium, page):
    opened = Opened(chromium, page, size=(390, 844), phone=True)
    before = opened.ranges()
    box = opened.js(
        "const b = document.getElementById('frame').getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height "
        "/ 2]"
    )
    for kind, apart in (("touchStart", 20), *(("touchMove", apart) for apart in range(24, 90, 6)), ("touchEnd", None)):
        fingers = (
            []
            if apart is None
            else [{"x": box[0] + side * apart, "y": box[1], "id": n} for n, side in enumerate((-1, 1))]
        )
        opened.cdp("Input.dispatchTouchEvent", type=kind, touchPoints=fingers)
    opened.settle()
    after = opened.ranges()
    assert after["right"] - after["left"] < 0.8 * (before["right"] - before["left"])
    assert opened.js("return visualViewport.scale") == 1
