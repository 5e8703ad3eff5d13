from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
from cases import PRICED, TEMPLATES, ladder, small_suite

from evolve.datasets import SPLITS
from evolve.profiles import ModelProfile
from evolve.verdicts import robustness
from evolve.verdicts.models import shares, splits_of
from evolve.verdicts.robustness import NOISE, NoisyShare, judge_robustness

SMALL = small_suite()


def _judge(rule, dataset):
    splits = splits_of(dataset, "curves")
    clean = {split.name: shares([rule], TEMPLATES, split.arena)[0] for split in splits}
    return judge_robustness(rule, TEMPLATES, splits, clean, seed=0)


def test_the_larger_the_errors_the_more_a_rule_near_the_cliff_loses() -> None:
    found = _judge(PRICED, SMALL)
    for split in ("train", "valid", "test"):
        rows = [row for row in found.rows if row.split == split]
        assert [row.noise for row in rows] == list(NOISE)
        assert rows[-1].loss > max(rows[0].loss, 0)
        assert all(one.loss <= other.loss + 1e-3 for one, other in pairwise(rows))
        assert all(row.worst <= row.mean for row in rows)


def test_a_threshold_amid_equal_layers_is_not_robust() -> None:
    # All layers lose the same, just enough to stay within the threshold of FP16; the rule knows the
    # last digit of it, so that any error sends half of them to a format that ruins the model.
    def alike(profile: ModelProfile) -> ModelProfile:
        sensitivity = np.full((profile.num_layers, len(profile.formats)), 0.5)
        sensitivity[:, -2:] = 1e-4, 0.0
        return replace(profile, sensitivity=sensitivity)

    dataset = replace(SMALL, **{name: tuple(map(alike, SMALL.split(name))) for name in SPLITS})
    rule = ladder(('model.sensitivity("FP16") > p.x', "INT4"), otherwise="FP16", x=1.0001e-4)
    found = _judge(rule, dataset)
    assert found.finding == "not robust"
    assert all(row.below > 0.9 for row in found.rows)


def _rows(**losses: float) -> list[NoisyShare]:
    """Rows of splits where a rule of 0.8 loses so much with 20 % of errors, half of it with 10 %."""
    return [
        NoisyShare(split, noise, 0.8 - part * loss, 0.5, 0.0, part * loss)
        for split, loss in losses.items()
        for noise, part in zip(NOISE, (0, 0, 0.5, 1), strict=True)
    ]


def test_every_split_is_judged() -> None:
    finding, verdict = robustness._judge(_rows(train=0.0289 * 0.5, valid=0.019, test=0.0))
    assert finding == "robust to small errors"
    assert verdict == (
        "The rule is robust to errors of up to 10 %, not to larger ones: errors of 20 % cost it 1.90 points "
        "on valid. On test, its mean share is 80.00 % without errors, 80.00 % at 1 %, 80.00 % at 5 %, "
        "80.00 % at 10 % and 80.00 % at 20 %."
    )


def test_errors_that_help_are_no_robustness() -> None:
    finding, verdict = robustness._judge(_rows(train=0.0, test=-0.1))
    assert finding == "robust to small errors"
    assert verdict.startswith(
        "The rule is robust to errors of up to 5 %, not to larger ones: errors of 10 % add 5.00 points on "
        "test, so what it has there hangs on the exact values of the signals. On test, "
    )
    both = robustness._judge(_rows(train=0.016, test=-0.1))[1]
    assert "errors of 20 % cost it 1.60 points on train; errors of 10 % add 5.00 points on test" in both


def test_the_verdict_names_what_a_robust_rule_may_lose() -> None:
    finding, verdict = robustness._judge(_rows(train=0.009, test=-0.009))
    assert finding == "robust"
    assert verdict.startswith(
        "The rule is robust: errors of up to 20 % in the signals it reads cost it no more than 1 point on "
        "train and test. On test, its mean share is 80.00 % without errors, "
    )


def test_what_reads_nothing_measured_is_not_perturbed() -> None:
    found = _judge(ladder(('model.is_type("LayerNorm")', "FP32")), SMALL)
    assert found.finding == "reads nothing measured"
    assert not found.rows


def test_a_rule_far_from_its_threshold_is_robust() -> None:
    found = _judge(ladder(("model.gradient_sensitivity > p.x", "FP16"), otherwise="FP32", x=0.0), SMALL)
    assert found.finding == "robust"
    assert all(abs(row.loss) < 1e-12 for row in found.rows)
