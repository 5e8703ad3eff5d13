from __future__ import annotations

import pytest
from cases import SENSITIVE, TEMPLATES, THRESHOLD, ladder, small_suite

from evolve.candidates import Candidate, Evaluation, Offspring, Scored
from evolve.engine import Outcome
from evolve.price_fitting import PriceFit
from evolve.verdicts.ancestry import judge_carriers
from evolve.verdicts.models import shares, splits_of
from evolve.verdicts.parts import variants
from evolve.verdicts.undoing import without_step

TEMPLATE = TEMPLATES["ladder"]
NORMS = ('model.is_type("LayerNorm")', "FP32")
EDGES = ("model.edge_distance < p.edge_distance", "FP32")
#: Says again what the first clause said.
DEAD = ('model.is_type("LayerNorm") & (model.depth > p.depth)', "FP16")


def test_each_clause_operand_and_number_is_a_part() -> None:
    rule = ladder(NORMS, ('model.is_type("Conv") & (model.depth > p.depth)', "INT8"), depth=7.0)
    found = {(each.part, each.instead) for each in variants(rule, TEMPLATE)}
    both = 'model.is_type("Conv") & (model.depth > p.depth)'
    assert found == {
        ('model.is_type("LayerNorm"): FP32', "no clause"),
        (f"{both}: INT8", "no clause"),
        (both, 'model.is_type("Conv")'),
        (both, "model.depth > p.depth"),
        ("p.depth = 7", "100"),
    }


def test_a_dead_clause_costs_nothing_and_is_told() -> None:
    rule = ladder(NORMS, DEAD, (SENSITIVE, "FP16"), otherwise="INT8", depth=5.0, sensitivity_int8=2e-4)
    found = _judge([Scored(Offspring(rule, "seed", (), "start"), Evaluation("ok"))])
    dead = {part.part for part in found.parts if part.dead}
    assert f"{DEAD[0]}: FP16" in dead
    living = next(part for part in found.parts if part.part.startswith(SENSITIVE))
    assert not living.dead
    assert living.losses[0] > 0
    assert "could go" in found.verdict


def test_what_only_scales_a_price_is_worth_nothing_once_the_price_is_set_anew() -> None:
    scaled, said = "model.param_fraction * p.weight", "model.edge_distance + p.weight_2"
    weight = f"{scaled} * ({said})"
    bred = Candidate(
        "weighted",
        (("weight", weight), ("loss", "model.loss")),
        (("price", 4.0), ("weight", 5.0), ("weight_2", 9.0)),
    )
    prices = PriceFit(small_suite().train, "curves", TEMPLATES)
    chain = [Scored(Offspring(prices(bred), "seed", (), "start"), Evaluation("ok"))]
    found = _judge(chain, prices)
    parts = {(each.part, each.instead): each for each in found.parts}
    scale, number = parts[scaled, "model.param_fraction"], parts["p.weight = 5", "1"]
    assert scale.losses[0] > 0.02
    assert number.losses == scale.losses
    assert scale.repriced[0] == pytest.approx(0, abs=1e-3)
    assert number.repriced == ()
    assert parts[weight, said].repriced[0] > 0.05  # sizes are gone, and no price makes up for that
    assert f"{weight} matters most: without it and with its price set anew, it loses" in found.verdict
    assert not any(each.repriced for each in _judge(chain).parts)


def test_a_rule_without_a_price_has_none_to_set_anew() -> None:
    prices = PriceFit(small_suite().train, "curves", TEMPLATES)
    found = _judge([Scored(Offspring(ladder(NORMS), "seed", (), "start"), Evaluation("ok"))], prices)
    assert found.parts
    assert not any(each.repriced for each in found.parts)


def test_the_last_step_undone_is_its_parent() -> None:
    parent, child = ladder(NORMS), ladder(NORMS, EDGES, edge_distance=0.1)
    assert without_step(child, child, parent, TEMPLATE) == parent


def test_an_added_clause_is_removed_though_its_number_was_tuned_since() -> None:
    parent, child = ladder(NORMS), ladder(NORMS, EDGES, edge_distance=0.1)
    later = ladder(NORMS, EDGES, (SENSITIVE, "FP32"), edge_distance=0.2, sensitivity_int8=0.5)
    assert without_step(later, child, parent, TEMPLATE) == ladder(
        NORMS, (SENSITIVE, "FP32"), sensitivity_int8=0.5
    )


def test_a_removed_clause_comes_back_in_its_place() -> None:
    parent, child = ladder(EDGES, NORMS, edge_distance=0.1), ladder(NORMS)
    later = ladder(NORMS, (SENSITIVE, "FP32"), sensitivity_int8=0.5)
    expected = ladder(EDGES, NORMS, (SENSITIVE, "FP32"), edge_distance=0.1, sensitivity_int8=0.5)
    assert without_step(later, child, parent, TEMPLATE) == expected


def test_a_number_goes_back_unless_it_was_changed_since() -> None:
    parent, child = ladder(EDGES, edge_distance=0.1), ladder(EDGES, edge_distance=0.2)
    later = ladder(EDGES, NORMS, edge_distance=0.2)
    assert without_step(later, child, parent, TEMPLATE) == ladder(EDGES, NORMS, edge_distance=0.1)
    assert without_step(ladder(EDGES, NORMS, edge_distance=0.3), child, parent, TEMPLATE) is None


def test_what_is_gone_cannot_be_undone() -> None:
    parent, child = ladder(NORMS), ladder(NORMS, EDGES, edge_distance=0.1)
    assert without_step(ladder((SENSITIVE, "FP32"), sensitivity_int8=0.1), child, parent, TEMPLATE) is None


def test_steps_are_measured_against_their_parents_and_undone_alone() -> None:
    seed = ladder(otherwise="INT8")
    chain = [
        Scored(Offspring(seed, "seed", (), "start"), Evaluation("ok")),
        Scored(Offspring(THRESHOLD, "structure", (seed.id,), "clause added"), Evaluation("ok")),
    ]
    found = _judge(chain)
    (step,) = found.steps
    assert step.number == 2
    assert step.losses == pytest.approx(step.gains)
    assert step.gains[0] > 0


def test_a_newcomer_is_an_origin_and_not_compared_with_what_stands_as_its_parent() -> None:
    seed, drawn = ladder(otherwise="INT8"), ladder(NORMS, otherwise="INT8")
    chain = [
        Scored(Offspring(seed, "seed", (), "start"), Evaluation("ok")),
        Scored(Offspring(drawn, "newcomer", (seed.id,), "a random ladder"), Evaluation("ok")),
    ]
    alone = _judge(chain)
    (step,) = alone.steps
    assert (step.number, step.gains, step.losses) == (2, (), ())
    assert alone.verdict.startswith("The rule was drawn at random")
    bred = Offspring(THRESHOLD, "structure", (drawn.id,), "clause changed")
    found = _judge([*chain, Scored(bred, Evaluation("ok"))])
    first, last = found.steps
    assert (first.gains, first.losses) == ((), ())
    assert last.gains[0] > 0
    assert last.losses == pytest.approx(last.gains)
    assert found.verdict.startswith("Of 1 step of its ancestry 1 gained on test, the most step 3")
    assert "It goes back to what was drawn at random in step 2." in found.verdict


def _judge(chain, prices=None):
    splits = splits_of(small_suite(), "curves")
    outcome = Outcome(chain[-1], tuple(chain), (), True)
    own = {split.name: shares([chain[-1].candidate], TEMPLATES, split.arena)[0] for split in splits}
    return judge_carriers(outcome, TEMPLATES, splits, own, prices=prices)
