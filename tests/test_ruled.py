"""Rules within budgets, and models by name: what `allocate` asks for."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from evolve.budgets import loss_of, parse_budget
from evolve.constraints import keeps
from evolve.datasets import find_dataset
from evolve.errors import BudgetError, PluginError
from evolve.model_lookup import find_model
from evolve.questions import answer_to_json, ask, ask_rule
from evolve.ruled import NamedRule, find_rule, rule_as_it_is, rule_within

HAWQ = find_dataset("hawqv3").train[0]
REFERENCE = find_dataset("reference")


class TestRules:
    @pytest.mark.parametrize("name", ["pareto_optimal", "sensitivity_based", "gradient_weighted"])
    @pytest.mark.parametrize("bits", [6.0, 9.0, 12.0])
    def test_the_widest_within_a_budget(self, name: str, bits: float) -> None:
        (profile,) = REFERENCE.test
        rule = find_rule(name)
        budget = parse_budget(f"avg_bits={bits}", profile)
        ruling = rule_within(rule, profile, (budget,))
        assert keeps(ruling.choices, (budget,))
        place = [each.name for each in rule.parameters].index(str(ruling.swept))
        for unit in np.linspace(0, 1, 101):
            parameter = rule.parameters[place]
            changed = list(rule.parameters)
            changed[place] = dataclasses.replace(parameter, default=parameter.from_unit(float(unit), 12))
            other = rule_as_it_is(dataclasses.replace(rule, parameters=tuple(changed)), profile)
            if keeps(other.choices, (budget,)):
                assert budget.cost.total(other.choices) <= budget.cost.total(ruling.choices)
        again = rule_as_it_is(ruling.rule, profile)
        assert again.choices.tolist() == ruling.choices.tolist()

    def test_the_narrowest_above_a_floor(self) -> None:
        (profile,) = REFERENCE.test
        answer = ask_rule(ask(profile, retention=0.97), find_rule("pareto_optimal"))
        found = answer_to_json(answer)
        assert found["predicted"]["retention"] >= 0.97
        assert found["optimum"]["predicted"]["size_bytes"] <= found["predicted"]["size_bytes"]
        assert found["optimum"]["proven"]

    def test_beside_the_best_that_takes_no_more(self) -> None:
        (profile,) = REFERENCE.test
        answer = ask_rule(ask(profile), find_rule("layernorm_fp32_else_fp16"))
        found = answer_to_json(answer)
        own, best = found["rule"]["predicted"], found["optimum"]["predicted"]
        assert found["rule"]["swept"] is None
        assert best["size_bytes"] <= own["size_bytes"]
        assert best["retention"] >= own["retention"]
        assert found["shortfall"] == pytest.approx(1 - own["retention"] / best["retention"], rel=1e-6)

    def test_worse_than_one_format_is_never_silent(self) -> None:
        (profile,) = REFERENCE.test
        wasteful = NamedRule(
            "wasteful",
            "def allocate(model, p):\n"
            "    return model.where(model.relative_position > 0.5, 'INT2', 'FP32')\n",
            "",
            (),
        )
        own = rule_as_it_is(wasteful, profile)
        replaced = ask_rule(ask(profile), wasteful)
        assert len(set(replaced.allocation().formats)) == 1
        assert "in place of wasteful" in replaced.source
        assert any("wasteful is worse than" in each for each in replaced.notes)
        loss = loss_of(profile)
        assert loss.total(replaced.choices) < loss.total(own.choices)
        kept = ask_rule(ask(profile), wasteful, fall_back=False)
        assert kept.choices.tolist() == own.choices.tolist()
        assert any("wasteful is worse than" in each for each in kept.notes)

    def test_ties_take_the_widest_format(self) -> None:
        rule = NamedRule(
            "alternating",
            "def allocate(model, p):\n    return model.where(model.edge_distance < 0.3, 'INT8', 'INT4')\n",
            "",
            (),
        )
        answer = ask_rule(ask(HAWQ), rule)
        formats = answer.allocation().formats
        assert formats[4] == formats[6] == "INT8"
        assert any("ties put 2 layers" in each for each in answer.notes) or answer.ruling.widened > 0

    def test_without_a_price(self) -> None:
        (profile,) = REFERENCE.test
        with pytest.raises(PluginError, match=r"uniform_int8: the rule has no price.*8 bits"):
            ask_rule(ask(profile, ["size=10MB"]), find_rule("uniform_int8"))

    def test_a_named_parameter(self) -> None:
        (profile,) = REFERENCE.test
        rule = find_rule("sensitivity_based")
        names = [each.name for each in rule.parameters]
        answer = ask_rule(ask(profile, ["bits=12"]), rule, swept=names[-1])
        assert answer.ruling is not None
        assert answer.ruling.swept == names[-1]
        with pytest.raises(PluginError, match="no such parameter"):
            ask_rule(ask(profile, ["bits=12"]), rule, swept="pric")
        with pytest.raises(BudgetError, match="no budget to keep"):
            ask_rule(ask(profile), rule, swept=names[-1])

    def test_a_budget_below_all_it_reaches(self) -> None:
        (profile,) = REFERENCE.test
        with pytest.raises(BudgetError, match=r"pareto_optimal never keeps this budget.*at least"):
            ask_rule(ask(profile, ["bits=1.5"]), find_rule("pareto_optimal"))

    def test_a_rule_that_fails(self) -> None:
        with pytest.raises(PluginError, match=r"uniform_fp16: the rule fails.*INT4, INT8"):
            ask_rule(ask(HAWQ), find_rule("uniform_fp16"))
        with pytest.raises(PluginError, match=r"allows metadata$"):
            ask_rule(ask(REFERENCE.test[0]), find_rule("pareto_optimal"), "metadata")

    def test_a_champion(self, tmp_path: Path) -> None:
        heuristic = find_rule("gradient_weighted")
        example = Path(__file__).parents[1] / "reports" / "example" / "champion.json"
        rule = find_rule(str(example))
        assert rule.name.startswith("champion ")
        assert heuristic.parameters != rule.parameters
        data = json.loads(example.read_text())
        for change, words in (
            ({"template": "nowhere"}, "unknown template"),
            ({"slots": 3}, "not a champion"),
        ):
            file = tmp_path / "champion.json"
            file.write_text(json.dumps({**data, **change}))
            with pytest.raises(PluginError, match=words):
                find_rule(str(file))
            with pytest.raises(PluginError, match=words):
                find_rule(str(tmp_path))


class TestModels:
    def test_by_name_and_by_split(self) -> None:
        assert find_model("hawqv3") == HAWQ
        assert find_model("reference:test") == REFERENCE.test[0]
        assert find_model(f"hawqv3:{HAWQ.name}") == HAWQ
        suite = find_dataset("suite:3").test[0]
        assert find_model(f"suite:3:{suite.name}") == suite

    def test_refusals(self) -> None:
        for spec, words in (
            ("reference", "Name one of them, as in 'reference:"),
            ("reference:tset", "Did you mean 'test'"),
            ("referense:test", "Did you mean 'reference'"),
            ("suite:x", "no such model"),
        ):
            with pytest.raises(Exception, match=words):
                find_model(spec)
