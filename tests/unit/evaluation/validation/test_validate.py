"""The metrics themselves are tested: images whose faults are known are scored, and each metric ranks them as its entry
in the catalogue says.

The small lungs are those of `microsr evaluate validate`; the second one is for a night, as scoring takes a minute.
"""

import numpy as np
import pandas as pd
import pytest

from microsr import config
from microsr.core.errors import UserError
from microsr.evaluation.catalogue import CANDIDATES, METRICS
from microsr.evaluation.validation.validate import SIMULATED, broken_claims, judge, measure, read_lung, validate
from microsr.simulation.simulate import simulate

SEEDS = (1, 2)


@pytest.fixture(scope="module")
def lungs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lungs")
    for seed in SEEDS:
        simulate(folder / f"seed {seed}", "metrics", "test", seed, SIMULATED, config.Scanner())
    return [read_lung(folder / f"seed {seed}") for seed in SEEDS]


@pytest.fixture(scope="module", params=[0, pytest.param(1, marks=pytest.mark.nightly)], ids=["seed 1", "seed 2"])
def judged(request, lungs):
    """What the metrics make of the images of one lung, beside the other."""
    own, other = lungs[request.param], lungs[1 - request.param]
    return judge(measure(own, other, config.Scanner(), config.Evaluate())).assign(lung=own.name)


def values(judged, metric):
    return judged[judged["metric"] == metric].set_index("candidate")["value"]


def test_each_metric_ranks_the_images_as_its_entry_says(judged):
    assert broken_claims(judged) == []
    assert set(judged["candidate"]) == {"truth", *CANDIDATES}
    measured = judged[judged["candidate"] == "truth"].dropna(subset="value")
    spoken = judged.loc[judged["claim"] != "", "metric"]
    assert set(measured["metric"]) - set(spoken) <= {"smallest_bronchiole_high"}, "of a few airways it may be infinite"


def test_the_truth_gets_the_best_mark_of_every_metric_against_it(judged):
    truth = judged[judged["candidate"] == "truth"].set_index("metric")["value"]
    assert truth["psnr"] == np.inf
    assert truth[["ssim", "ms_ssim"]].tolist() == pytest.approx([1, 1])
    assert truth["bronchiole_detected"] >= 0.98
    begin = ("rmse_", "small_", "airways_", "lesions_")
    zero = [name for name in truth.index if name.startswith(begin) or name.endswith(("_um", "l_rmse"))]
    assert len(zero) > 10
    assert (truth[zero].fillna(0) == 0).all(), truth[zero].to_string()


def test_the_two_parts_of_the_error_are_the_error(judged):
    """The range of 1400 HU divided by 10^(PSNR / 20) is the root mean square error."""
    whole = 1400 / 10 ** (values(judged, "psnr") / 20)
    assert np.hypot(values(judged, "measured_rmse"), values(judged, "null_rmse")).to_dict() == pytest.approx(
        whole.to_dict(), rel=1e-3
    )


def test_the_linear_estimate_is_better_than_what_knows_nothing_of_the_scanner(judged):
    psnr = values(judged, "psnr")
    assert psnr["linear"] > psnr["nearest"] + 0.2


def test_planted_airways_are_counted_and_none_of_them_is_missed(judged):
    invented, lost = values(judged, "airways_invented"), values(judged, "airways_lost")
    assert 0.1 < invented["planted_airways"] < 0.4 and lost["planted_airways"] < 0.02
    assert lost["removed_airways"] > 0.95


def test_no_image_passes_all_metrics_of_structures():
    """Else a method could make the same mistake and nobody would see it."""
    of_structures = [m for m in METRICS if m.key.startswith(("bronchiole", "small_", "airways_", "lesions_", "wall_"))]
    seen = {name for metric in of_structures for name in metric.sees}
    assert set(CANDIDATES) - seen == {"checkerboard"}, "for which there is a metric of its own"
    for metric in METRICS:
        assert set(metric.sees) | set(metric.blind) <= set(CANDIDATES) and not set(metric.sees) & set(metric.blind)
        assert metric.protocol in ("no_reference", "truth") or not (metric.sees or metric.blind)


def rows(protocol, metric, unit="HU", **found):
    return pd.DataFrame(
        [(candidate, protocol, metric, value, unit) for candidate, value in found.items()],
        columns=["candidate", "protocol", "metric", "value", "unit"],
    )


@pytest.mark.parametrize(
    ("metric", "found", "losses"),
    [
        (("truth", "null_rmse"), {"truth": 0, "blurred": 100, "shifted": 50, "nearest": 1}, [0, 1, 0.5, 0.01]),
        (("truth", "psnr", "dB"), {"truth": np.inf, "blurred": 20, "shifted": 40}, [0, 1, 0.1]),
        (("no_reference", "consistency_rmse"), {"truth": 60, "nearest": 0, "shifted": 90}, [0, 1, 0.5]),
        (("no_reference", "mean_shift"), {"truth": -1, "blurred": 11, "nearest": 0}, [0, 1, -0.1]),
        (("truth", "smallest_bronchiole", "mm"), {"truth": 0.5, "blurred": np.inf, "shifted": 1}, [0, 1, 1]),
        (("truth", "ssim", "1"), {"truth": 1, "blurred": 0.2, "shifted": np.nan}, [0, 1, np.nan]),
        (("truth", "lesions_lost", "count"), {"truth": 0, "blurred": 0}, [0, 0]),
    ],
)
def test_a_loss_is_how_much_worse_than_the_truth_as_a_share_of_the_worst(metric, found, losses):
    judged = judge(rows(*metric, **found))
    assert judged["loss"].tolist() == pytest.approx(losses, nan_ok=True)
    said = ["" if np.isnan(loss) else "worse" if loss >= 0.02 else "as good" for loss in losses[1:]]
    assert judged["verdict"].tolist() == ["", *said]


def test_a_claim_that_is_not_kept_is_told():
    judged = judge(rows("truth", "lesions_lost", "count", truth=0, removed_nodules=0, other_lung=2, blurred=1))
    assert broken_claims(judged.assign(lung="a")) == [
        "truth.lesions_lost: the truth without vessels and tumour of a is as good, not worse",
        "truth.lesions_lost: the truth, blurred of a is worse, not as good",
    ]


def test_one_lung_is_not_enough(tmp_path):
    with pytest.raises(UserError, match=r"^--seeds 3: give two or more"):
        validate([3], config.Scanner(), config.Evaluate(), tmp_path / "out.csv")
