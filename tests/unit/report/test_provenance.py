import json
import time

from microsr import config
from microsr.core.provenance import write_run
from microsr.report.provenance import as_tree, changed_settings, summarise_making


def test_settings_that_are_not_the_defaults_are_named_and_how_the_work_is_done_is_not():
    given = {
        "experiment": "x", "train": {"epochs": 3}, "compute": {"threads": 7}, "superresolve": {"formats": ["nifti"]},
        "methods": {"proposed": {"losses": {"cycle": 9}}, "mine": {"kind": "bicubic"}},
    }  # fmt: skip
    found = changed_settings(config.load(given))
    assert found == ["methods.proposed.losses.cycle=9.0", 'methods.mine.kind="bicubic"', "train.epochs=3"]
    assert as_tree(found)["methods"]["mine"] == {"kind": "bicubic"}
    assert as_tree(["a.b=[0.5, 1]", "a.c=plain"]) == {"a": {"b": [0.5, 1], "c": "plain"}}
    assert changed_settings(config.load({"experiment": "other"})) == []


def test_what_is_told_of_the_records_holds_no_times(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("scan.nii", "generator.pt", "sr.csv", "table.csv"):
        (tmp_path / name).write_text(name)
    write_run(tmp_path / "generator.pt", "train", {}, [tmp_path / "scan.nii"], 1.0)
    write_run(tmp_path / "sr.csv", "superresolve", {}, [tmp_path / "generator.pt"], 2.0)
    write_run(tmp_path / "table.csv", "evaluate.summarise", {}, [tmp_path / "sr.csv"], time.time())
    found = summarise_making([tmp_path / "table.csv"])
    assert found["steps"] == [("evaluate.summarise", 1), ("superresolve", 1), ("train", 1)]
    assert [name for name, _ in found["files"]] == ["scan.nii"] and [name for name, _ in found["models"]] == [
        "generator.pt"
    ]
    assert all(len(sha) == 64 for _, sha in found["files"] + found["models"])
    assert found["code"][0][0].startswith("microsr ") and found["code"][0][1] == 3
    assert "numpy" in dict(found["packages"]) and found["more_files"] == 0
    assert time.strftime("%Y-") not in json.dumps(found["steps"] + found["code"] + found["files"])
