import base64
import io

import numpy as np
import pytest
from PIL import Image

from microsr.core.errors import UserError
from microsr.report.figures import DATA, EVALUATION, TRAINING, caption, show_figures, shrink


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def decoded(address: str) -> np.ndarray:
    head, _, text = address.partition(",")
    assert head == "data:image/webp;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB"))


def test_a_drawing_stays_what_it_is_and_a_wide_one_is_scaled_down(tmp_path):
    lines = np.full((100, 200, 3), 255, np.uint8)
    lines[::9], lines[:, ::7] = (0, 114, 178), (213, 94, 0)
    address, size = shrink(save(tmp_path / "lines.png", lines))
    assert size == (200, 100) and np.array_equal(decoded(address), lines)
    address, size = shrink(save(tmp_path / "wide.png", np.full((300, 3600, 3), 90, np.uint8)))
    assert size == (1800, 150) and decoded(address).shape == (150, 1800, 3)


def test_a_picture_of_noise_is_much_smaller_than_its_file_and_close_to_it(tmp_path):
    noise = np.random.default_rng(0).normal(128, 30, (300, 300, 1)).clip(0, 255).astype(np.uint8).repeat(3, 2)
    path = save(tmp_path / "noise.png", noise)
    address, _ = shrink(path)
    assert len(address) < 0.8 * path.stat().st_size
    assert np.abs(decoded(address).astype(int) - noise).mean() < 12


def test_figures_come_in_the_order_of_the_sections_with_titles(tmp_path):
    names = ["metrics_truth", "patches_a_b_micro", "losses", "new-kind", "network_cyclegan", "volumes", "calibration"]
    paths = [save(tmp_path / f"{name}.png", np.zeros((4, 4, 3), np.uint8)) for name in names]
    shown, left_out = show_figures(paths, tmp_path, {})
    assert [(figure.name, figure.section) for figure in shown] == [
        ("patches_a_b_micro", DATA), ("calibration", DATA), ("network_cyclegan", TRAINING), ("losses", TRAINING),
        ("metrics_truth", EVALUATION), ("new-kind", EVALUATION),
    ]  # fmt: skip
    titles = {figure.name: figure.title for figure in shown}
    assert titles["patches_a_b_micro"] == "Where patches were taken: a_b, uCT"
    assert titles["network_cyclegan"] == "Networks and losses: cyclegan" and titles["new-kind"] == "New kind"
    assert left_out == {}


def test_of_one_kind_a_few_are_shown_and_the_others_counted(tmp_path):
    paths = [
        save(tmp_path / f"{kind}_c{n}_micro.png", np.zeros((4, 4, 3), np.uint8))
        for kind in ("patches", "metrics")
        for n in range(6)
    ]
    shown, left_out = show_figures(paths, tmp_path, {})
    assert left_out == {"patches": 2} and len(shown) == 10


def test_a_caption_may_ask_for_settings_and_cannot_include_files(tmp_path):
    file = tmp_path / "a.rst"
    file.write_text('``<x>``, {{ snakemake.config.get("evaluate", {}).get("data_range_hu", 1400) }} HU.')
    assert caption(file, {"evaluate": {"data_range_hu": 2000}}) == (
        '<p><span class="docutils literal">&lt;x&gt;</span>, 2000 HU.</p>'
    )
    (tmp_path / "secret").write_text("secret words")
    file.write_text(f".. include:: {tmp_path / 'secret'}\n\n.. raw:: html\n\n   <script>x</script>\n")
    assert "secret words" not in caption(file, {}) and "<script" not in caption(file, {})
    assert caption(tmp_path / "none.rst", {}) == ""
    file.write_text("{{ nothing.here }}")
    with pytest.raises(UserError, match=r"a.rst: is no caption"):
        caption(file, {})
