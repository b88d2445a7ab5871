"""One training in a state folder at a time, and attempts that are of no use end at once or say so."""

import json
import os

import pytest

from microsr.core.errors import UserError
from microsr.training import train
from microsr.training.attempts import sole_attempt
from microsr.training.monitor import divergence_error
from unit.training.test_resume import ALWAYS, differences, run


def attempt(folder, number=1, fails=None, saves=None):
    with sole_attempt(folder, number):
        if saves is not None:
            (folder / f"step-{saves:09d}.pt").write_bytes(b"")
        if fails is not None:
            raise fails


def test_what_diverged_is_not_tried_again_but_by_a_new_start(tmp_path):
    with pytest.raises(UserError, match="D1 is nan at step 4"):
        attempt(tmp_path, fails=divergence_error("D1 is nan at step 4"))
    for number in (2, 3):
        with pytest.raises(UserError, match=r"^training diverged: D1 is nan at step 4; lower train\.learning_rate"):
            attempt(tmp_path, number)
    attempt(tmp_path, 1)
    attempt(tmp_path, 2)


def test_other_errors_are_tried_again(tmp_path):
    for error in (UserError("the disk is full"), OSError("too"), KeyboardInterrupt(), SystemExit(143)):
        with pytest.raises(type(error)):
            attempt(tmp_path, fails=error)
        attempt(tmp_path, 2)


def test_attempts_that_came_to_no_new_state_say_so(tmp_path, caplog):
    for number in (1, 2):
        with pytest.raises(SystemExit):
            attempt(tmp_path, number, SystemExit(143))
    assert not caplog.messages
    with pytest.raises(SystemExit):
        attempt(tmp_path, 3, SystemExit(143))
    assert caplog.messages[-1].startswith(
        "2 attempts in a row were ended before they saved a state (this one goes on from its start)"
    )
    with pytest.raises(SystemExit):
        attempt(tmp_path, 1, SystemExit(143), saves=7)
    assert caplog.messages[-1].startswith("3 attempts in a row")
    caplog.clear()
    for number in (1, 2, 3):
        with pytest.raises(SystemExit):
            attempt(tmp_path, number, SystemExit(143), saves=7 + number)
    assert not caplog.messages


def test_a_finished_training_leaves_no_note(tmp_path):
    attempt(tmp_path, saves=3)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000003.pt"]


@pytest.mark.parametrize("said", ["", "half", "[]"])
def test_a_note_that_is_broken_counts_for_nothing(said, tmp_path):
    (tmp_path / "attempt.json").write_text(said)
    attempt(tmp_path, 2)


def test_a_disk_without_room_for_the_note_does_not_stop_a_training(tmp_path, monkeypatch):
    def full(path, text):
        raise UserError("the disk is full")

    monkeypatch.setattr("microsr.training.attempts.write_atomically", full)
    attempt(tmp_path)


def test_two_trainings_do_not_share_a_state_folder(patches, tmp_path, monkeypatch):
    """The second is refused while the first is at it, and changes nothing of what it comes to."""
    straight = run(patches, tmp_path / "straight")
    plain, refused = train.save_state, []

    def save_state(folder, step, state):
        plain(folder, step, state)
        with pytest.raises(
            UserError, match=rf"the training in {folder} is being done by process {os.getpid()} on "
        ) as error:
            run(patches, tmp_path / "second", state=tmp_path / "first/state")
        refused.append(str(error.value))

    monkeypatch.setattr(train, "save_state", save_state)
    assert differences(run(patches, tmp_path / "first", minutes=ALWAYS), straight) == []
    assert refused and not (tmp_path / "second/model").exists()
    monkeypatch.setattr(train, "save_state", plain)
    assert differences(run(patches, tmp_path / "second", state=tmp_path / "first/state"), straight) == []


def test_an_attempt_after_a_divergence_takes_no_step(patches, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="training diverged") as first:
        run(patches, tmp_path, learning_rate=1e30)
    (note,) = tmp_path.glob("state/*/attempt.json")
    assert json.loads(note.read_text(encoding="utf-8")) == {"diverged": str(first.value)}
    plain = train._run
    monkeypatch.setattr(train, "_run", lambda *arguments: pytest.fail("it trains again"))
    with pytest.raises(UserError) as second:
        run(patches, tmp_path, learning_rate=1e30, attempt=2)
    assert str(second.value) == str(first.value)
    monkeypatch.setattr(train, "_run", plain)
    with pytest.raises(UserError, match="training diverged"):
        run(patches, tmp_path, learning_rate=1e30, attempt=1)
