import json

import numpy as np
import pytest
import torch

from microsr.core.errors import UserError
from microsr.figures.style import SMALLEST_PANEL, TALLEST
from microsr.report.panels import draw_panels, make_panels, read_panels
from microsr.training.monitor import Board

SETTINGS, CODE = {"train": {"epochs": 1}}, "0123456789abcdef"


@pytest.fixture
def training(tmp_path):
    """The record of a training, and its state with panels of ten steps: clinical patches at 0, A_SR at step / 10."""
    record = tmp_path / "run.json"
    record.write_text(
        json.dumps(
            {"settings": SETTINGS, "inputs": {"a/clinical.npy": "1", "a/micro.npy": "2"}, "code": {"fingerprint": CODE}}
        )
    )
    other = tmp_path / "states/0000"
    mine = tmp_path / "states/1111"
    for folder, settings in ((other, {"train": {"epochs": 2}}), (mine, SETTINGS)):
        folder.mkdir(parents=True)
        identity = {"settings": settings, "inputs": [["a/clinical.npy", "1"], ["a/micro.npy", "2"]], "code": CODE}
        (folder / "settings.json").write_text(json.dumps(identity))
    board = Board(mine, 0, 4, "cpu")
    for step in range(1, 11):
        board.show_panel(torch.zeros(4, 1, 2, 2), torch.full((4, 1, 16, 16), step / 10), step)
    board.close()
    return record, tmp_path / "states"


def test_panels_are_those_of_this_training_evenly_spread_with_the_last(training):
    found = read_panels(*training)
    assert list(found) == [1, 3, 5, 6, 8, 10]
    for step, picture in found.items():
        assert picture.shape == (32, 64)
        assert np.all(np.abs(picture[:16] - 127.5) <= 1), "clinical patches above"
        assert np.all(np.abs(picture[16:] - 127.5 * (1 + step / 10)) <= 2)


def test_a_training_whose_state_is_gone_or_of_other_settings_has_none(training, tmp_path):
    record, states = training
    assert read_panels(record, tmp_path / "nowhere") == {}
    run = json.loads(record.read_text(encoding="utf-8"))
    record.write_text(json.dumps(run | {"code": {"fingerprint": "other"}}))
    assert read_panels(record, states) == {}
    record.write_text("{}")
    with pytest.raises(UserError, match=r"run.json: is no record of a training"):
        read_panels(record, states)


def test_damaged_panels_are_no_reason_to_stop(training):
    record, states = training
    for file in (states / "1111/tensorboard").iterdir():
        file.write_bytes(b"no events")
    assert read_panels(record, states) == {}


def test_the_figure_has_a_row_for_each_method_or_says_that_nothing_is_kept(training):
    figure = draw_panels({"proposed": read_panels(*training), "cyclegan": {}})
    assert [axes.get_title(loc="left") for axes in figure.axes] == [f"step {n}" for n in (1, 3, 5, 6, 8, 10)]
    assert figure.axes[0].images[0].get_array().shape == (32, 32), "the first two patches"
    assert [text.get_text() for text in figure.texts] == [
        "Proposed",
        "CycleGAN: no sample panels are kept of this training",
    ]


def test_the_steps_shown_are_recorded(training, tmp_path, monkeypatch):
    monkeypatch.setattr("microsr.report.panels.save", lambda figure, output: None)
    record, states = training
    steps = make_panels({"a": record, "b": record}, {"a": states, "b": tmp_path / "gone"}, tmp_path / "figure")
    assert steps == {"a": [1, 3, 5, 6, 8, 10], "b": []}


def test_a_figure_of_many_methods_still_fits_a_page():
    picture = np.zeros((32, 64), np.uint8)
    figure = draw_panels({f"m{n}": dict.fromkeys(range(6), picture) for n in range(9)} | {"gone": {}})
    assert figure.get_figheight() == pytest.approx(TALLEST)
    box = figure.axes[0].get_position()
    assert box.width * figure.get_figwidth() == pytest.approx(box.height * figure.get_figheight()), (
        "patches stay square"
    )
    assert min(axes.get_position().y0 for axes in figure.axes) > 0
    assert draw_panels({"gone": {}}).get_figheight() < 1


def test_of_more_methods_than_fit_a_page_every_panel_still_has_a_size():
    figure = draw_panels({f"m{n}": {0: np.zeros((32, 64), np.uint8)} for n in range(60)})
    assert figure.get_figheight() > TALLEST
    assert min(axes.get_position().width for axes in figure.axes) * figure.get_figwidth() == pytest.approx(
        SMALLEST_PANEL
    )
