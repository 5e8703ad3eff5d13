from __future__ import annotations

from itertools import pairwise

from cases import TEMPLATES, ladder, small_suite

from evolve.verdicts.models import shares, splits_of
from evolve.verdicts.robustness import NOISE, judge_robustness


def _judge(rule, dataset):
    splits = splits_of(dataset, "curves")
    clean = {split.name: shares([rule], TEMPLATES, split.arena)[0] for split in splits}
    return judge_robustness(rule, TEMPLATES, splits, clean, seed=0)


def test_a_threshold_amid_the_signal_suffers_the_more_the_larger_the_errors() -> None:
    # Each model's layers lie close to the threshold, so that errors put them on the wrong side.
    mask = 'model.sensitivity("FP16") > model.quantile(model.sensitivity("FP16"), p.weight)'
    found = _judge(ladder((mask, "FP32"), otherwise="FP16", weight=0.5), small_suite())
    rows = [row for row in found.rows if row.split == "train"]
    assert [row.noise for row in rows] == list(NOISE)
    assert all(abs(one.loss) <= abs(other.loss) + 0.02 for one, other in pairwise(rows))


def test_what_reads_nothing_measured_is_not_perturbed() -> None:
    found = _judge(ladder(('model.is_type("LayerNorm")', "FP32")), small_suite())
    assert found.finding == "reads nothing measured"
    assert not found.rows


def test_a_rule_far_from_its_threshold_is_robust() -> None:
    found = _judge(
        ladder(("model.gradient_sensitivity > p.x", "FP16"), otherwise="FP32", x=0.0), small_suite()
    )
    assert found.finding == "robust"
    assert all(row.loss == 0 for row in found.rows)
