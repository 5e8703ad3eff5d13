"""Rules as families within budgets, and the ties and bits of each layer: against brute force."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from measured_profiles import measured_profile
from strategies import constrained_profiles, profiles

from evolve.budgets import parse_budget
from evolve.candidates import Candidate
from evolve.constraints import cliff
from evolve.datasets import Dataset, find_dataset
from evolve.errors import InputError, TemplateError
from evolve.evaluation import Arena, BudgetScores, Failure, ModelScores, SearchArena, Task, optimum_of
from evolve.families import NO_PRICE
from evolve.layer_groups import widest_of_groups
from evolve.objectives import LOSS_FLOOR, Budgets, best_losses, parse_objective, share_of_best
from evolve.parameters import Parameter
from evolve.plugin_files import general_templates, load_plugin
from evolve.profiles import ModelProfile
from evolve.python_source import compile_rule
from evolve.ruled import find_rule, rule_within
from evolve.scoring import score_loop
from evolve.synthetic import generate

EDGE = """
def allocate(model, p):
    return model.where(model.relative_position < p.edge, model.formats[0], model.formats[-1])
"""
LAGRANGIAN = """
def allocate(model, p):
    return model.cheapest(p.weight * model.param_fraction * model.bits + p.price * model.loss)
"""
PRICE = Parameter("price", 1.0, 1e-6, 1e8, "log")


def edges(*values: float) -> Task:
    return Task(EDGE, "rule.py", ("edge",), np.array(values)[:, None])


def families(*weights: float, source: str = LAGRANGIAN, price: float = 1.0) -> Task:
    values = np.array([[weight, price] for weight in weights])
    return Task(source, "rule.py", ("weight", "price"), values, PRICE)


def every_allocation(profile: ModelProfile) -> np.ndarray:
    options = itertools.product(range(len(profile.formats)), repeat=profile.num_layers)
    every = np.array(list(options), dtype=np.uint8)
    tied = widest_of_groups(every, profile.tied_layers)
    return every[(every == tied).all(axis=1)]


def bits_and_losses(profile: ModelProfile, choices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows = np.arange(profile.num_layers)
    size = profile.num_params[:, None] * profile.bits_table
    return size[rows, choices].sum(axis=1) / profile.total_params, profile.loss[rows, choices].sum(axis=1)


class TestTies:
    @given(constrained_profiles(max_layers=8), st.randoms(use_true_random=False))
    def test_each_group_gets_its_widest_format(self, profile, rng):
        choices = np.array(
            [[rng.randrange(9) for _ in range(profile.num_layers)] for _ in range(3)], np.uint8
        )
        tied = widest_of_groups(choices, profile.tied_layers)
        owner = {layer: group for group in profile.tied_layers for layer in group}
        for row, before in zip(tied, choices, strict=True):
            for layer, found in enumerate(row):
                assert found == max(before[each] for each in owner.get(layer, (layer,)))
        assert (widest_of_groups(choices[0], profile.tied_layers) == tied[0]).all()

    @settings(max_examples=60)
    @given(
        st.lists(constrained_profiles(max_layers=6) | profiles(max_layers=6), min_size=1, max_size=4),
        st.lists(st.floats(-0.1, 1.1), min_size=1, max_size=4),
    )
    def test_scores_keep_ties_and_the_bits_of_each_layer(self, models, values):
        results = Arena(models).evaluate(edges(*values))
        for index, model in enumerate(models):
            last = len(model.formats) - 1
            raw = np.array([np.where(model.relative_position < edge, 0, last) for edge in values], np.uint8)
            tied = widest_of_groups(raw, model.tied_layers)
            expected = score_loop(tied, model.num_params, model.bits_table, model.sensitivity)
            for name in (each.name for each in dataclasses.fields(ModelScores)):
                found = [getattr(result, name)[index] for result in results]
                np.testing.assert_allclose(found, getattr(expected, name), rtol=1e-11)

    @settings(max_examples=60)
    @given(constrained_profiles(max_layers=6, max_sensitivity=0.2))
    def test_the_optimum_is_that_of_the_constrained_solver(self, profile):
        (found,) = Arena([profile]).optimum_fitness
        assert found == pytest.approx(cliff(profile).value, rel=1e-12)
        every = every_allocation(profile)
        scores = score_loop(every, profile.num_params, profile.bits_table, profile.sensitivity)
        assert found == pytest.approx(scores.fitness.max(), rel=1e-9)

    def test_the_optimum_is_cached_by_all_that_it_depends_on(self):
        profile = measured_profile(3)
        free = dataclasses.replace(profile, tied_layers=())
        plain = dataclasses.replace(profile, layer_bits=None)
        again = dataclasses.replace(profile, description="elsewhere")
        assert optimum_of(again) is optimum_of(profile)
        assert len({optimum_of(each).fitness for each in (profile, free, plain)}) == 3

    def test_equal_allocations_have_equal_fingerprints(self):
        profile = dataclasses.replace(measured_profile(1), tied_layers=((0, 7),))
        # The first layer alone is lowered, or none: tied to the last, it is not.
        lowered, kept = Arena([profile]).behaviours(edges(0.01, -1.0))
        assert lowered == kept

    def test_hawqv3(self):
        dataset = find_dataset("hawqv3")
        (model,) = dataset.train
        found = Arena(dataset.train).optima[0]
        best = cliff(model)
        assert found.fitness == pytest.approx(best.value, rel=1e-12)
        assert (widest_of_groups(found.allocation, model.tied_layers) == found.allocation).all()


class TestObjective:
    def test_words(self):
        assert parse_objective("cliff") is None
        found = parse_objective("budgets:2.5,3,3.50")
        assert found == Budgets((2.5, 3.0, 3.5))
        assert str(found) == "budgets:2.5,3,3.5"

    @pytest.mark.parametrize(
        "text",
        ["", "budget:3", "budgets:", "budgets:3,2", "budgets:0", "budgets:3,inf", "budgets:x", "cliff:3"],
    )
    def test_bad_words(self, text):
        with pytest.raises(InputError, match="objective: unknown objective; expected cliff, or budgets:"):
            parse_objective(text)

    @settings(max_examples=80)
    @given(
        constrained_profiles(max_layers=5), st.lists(st.floats(1, 33), min_size=1, max_size=3, unique=True)
    )
    def test_the_best_within_budgets(self, profile, budgets):
        budgets = Budgets(tuple(sorted(budgets)))
        bits, losses = bits_and_losses(profile, every_allocation(profile))
        for limit, found in zip(budgets.bits, best_losses(profile, budgets), strict=True):
            fitting = losses[bits <= limit * (1 + 1e-12)]
            if len(fitting):
                assert found == pytest.approx(fitting.min(), rel=1e-9, abs=1e-12)
            else:
                assert np.isnan(found)

    @given(st.floats(0, 50), st.floats(0, 50))
    def test_shares(self, best, more):
        share = float(share_of_best(np.array(best + more), np.array(best)))
        assert 0 < share <= 1
        if more == 0:
            assert share == 1
        elif best > 1:
            assert share == pytest.approx(best / (best + more), abs=LOSS_FLOOR)

    def test_what_nobody_can_measure_counts_for_little(self):
        assert share_of_best(np.array(1e-6), np.array(0.0)) > 0.99
        assert share_of_best(np.array(np.inf), np.array(0.1)) == 0
        assert np.isnan(share_of_best(np.array(np.inf), np.array(np.nan)))


class TestFamilies:
    @settings(max_examples=40)
    @given(constrained_profiles(max_layers=5), st.floats(2, 32), st.floats(0.1, 10))
    def test_the_allocation_of_most_bits_within_the_budget(self, profile, limit, weight):
        """As many bits as the best of a sweep a hundred times as fine, for a rule whose bits only rise."""
        profile = dataclasses.replace(profile, layer_bits=None)
        arena = Arena([profile], "curves", Budgets((limit,)))
        (found,) = arena.evaluate(families(weight))
        assert isinstance(found, BudgetScores)
        prices = np.geomspace(1e-6, 1e8, 63 * 81 + 1)
        share = profile.param_fraction[:, None]
        costs = weight * share * profile.bits + prices[:, None, None] * profile.loss
        choices = widest_of_groups(costs.argmin(axis=2).astype(np.uint8), profile.tied_layers)
        bits, losses = bits_and_losses(profile, choices)
        fits = bits <= limit * (1 + 1e-12)
        (best,) = best_losses(profile, arena.budgets)
        if np.isnan(best):
            assert np.isnan(found.shares[0, 0])
            assert found.fitness[0] == 1
        elif not fits.any():
            assert found.shares[0, 0] == 0
        else:
            most = bits[fits].max()
            assert found.avg_bits[0] == pytest.approx(most, rel=1e-9)
            alike = losses[np.isclose(bits, most, rtol=1e-9)]
            expected = np.minimum((best + LOSS_FLOOR) / (alike + LOSS_FLOOR), 1)
            assert np.isclose(found.shares[0, 0], expected, rtol=1e-6).any()

    def test_means_over_budgets_and_models(self):
        models = [measured_profile(seed, 5 + seed) for seed in range(3)]
        budgets = Budgets((3.0, 4.0, 6.0))
        arena = SearchArena(Dataset("d", tuple(models[:2]), (models[2],), ()), "curves", budgets)
        (found,) = arena.evaluate(families(1.0))
        train, valid = arena.summaries(found)
        assert found.shares.shape == (3, 3)
        assert train.objective == train.fitness == pytest.approx(found.shares[:2].mean())
        assert train.worst_ratio == found.shares[:2].min()
        assert valid.objective == pytest.approx(found.shares[2].mean())
        assert (arena.optimum_fitness == 1).all()
        for index, model in enumerate(models):
            scores = arena.families.within(*_compiled(families(1.0)), index)
            bits, losses = bits_and_losses(model, scores.choices[0])
            np.testing.assert_allclose(bits, scores.bits[0], rtol=1e-12)
            np.testing.assert_allclose(losses, scores.losses[0], atol=1e-9)
            assert found.avg_bits[index] == pytest.approx(bits.mean())
            assert (widest_of_groups(scores.choices[0], model.tied_layers) == scores.choices[0]).all()

    def test_a_budget_that_nothing_keeps_is_left_out(self):
        arena = Arena([measured_profile(0)], "curves", Budgets((1.0, 4.0)))
        both = arena.evaluate(families(1.0))[0]
        alone = Arena([measured_profile(0)], "curves", Budgets((4.0,))).evaluate(families(1.0))[0]
        assert np.isnan(both.shares[0, 0])
        assert both.fitness == alone.fitness
        assert both.avg_bits == alone.avg_bits
        assert both.worst(both.fitness, slice(None)) == alone.shares.min()

    def test_the_swept_parameter_does_not_matter_and_neighbours_do_not(self):
        models = [measured_profile(seed, 6) for seed in range(2)]
        arena = Arena(models, "curves", Budgets((3.0, 4.5)))
        together = arena.evaluate(families(0.5, 1.0, 2.0, 1.0))
        for weight, one in zip((0.5, 1.0, 2.0, 1.0), together, strict=True):
            (alone,) = arena.evaluate(families(weight, price=77.0))
            for name in (each.name for each in dataclasses.fields(BudgetScores)):
                np.testing.assert_array_equal(getattr(one, name), getattr(alone, name))
        marks = arena.behaviours(families(0.5, 1.0, 0.5))
        assert marks[0] == marks[2]
        assert marks[0] == arena.behaviours(families(0.5, price=77.0))[0]

    def test_chunks_change_nothing(self, monkeypatch):
        arena = Arena([measured_profile(0)], "curves", Budgets((3.0,)))
        (whole,) = arena.evaluate(families(1.0))
        monkeypatch.setattr("evolve.families._CHUNK_ELEMENTS", 400)
        (parts,) = arena.evaluate(families(1.0))
        assert (whole.shares == parts.shares).all()

    def test_failures_are_values(self):
        arena = Arena([measured_profile(0)], "gradient", Budgets((3.0,)))
        plain = dataclasses.replace(families(1.0), sweep=None)
        assert arena.evaluate(plain) == [NO_PRICE]
        assert arena.behaviours(plain) == [NO_PRICE.reason]
        (above,) = arena.evaluate(families(1.0))
        assert above == Failure(
            "signal above the level", "loss needs the signals of level curves, this run allows gradient"
        )
        source = LAGRANGIAN.replace("model.loss", "model.fisher_loss")
        half = source.replace("return", "if (p.weight == 0.5).any(): raise ValueError('half')\n    return")
        good, bad = arena.evaluate(families(1.0, 0.5, source=half))
        assert isinstance(good, BudgetScores)
        assert bad == Failure("raised ValueError", "ValueError: half")
        marks = arena.behaviours(families(1.0, 0.5, source=half))
        assert marks == [arena.behaviours(families(1.0, source=source))[0], "ValueError: half"]

    def test_a_model_without_ties_or_measurements_is_scored_too(self):
        models = generate(2, 5)
        (found,) = Arena(models, "curves", Budgets((4.0, 8.0))).evaluate(families(1.0))
        assert (found.shares > 0.5).all()


def _compiled(task: Task) -> tuple[object, Task]:
    return compile_rule(task.source), task


def test_general_templates_say_what_is_swept():
    swept = {name: each.sweep.parameter for name, each in general_templates().items() if each.sweep}
    assert swept == {
        "weighted": "price",
        "two_pass": "second_price",
        "narrowest": "limit",
        "budget_fill": "budget",
        "cheapest": "weight",
    }


HEADER = """\
{{#
summary = "A family."
{}

[parameters.price]
default = 1.0
low = 1e-3
high = 1e3
scale = "log"
#}}
def allocate(model, p):
    return model.cheapest(model.param_fraction * model.bits + p.price * np.exp(-model.bits))
"""


class TestHeaders:
    @pytest.mark.parametrize(
        ("line", "bounds"),
        [
            ('sweep = "price"', (1e-3, 1e3)),
            ('sweep = { parameter = "price", high = 1e6 }', (1e-3, 1e6)),
            ('sweep = { parameter = "price", low = 1e-6, high = 10 }', (1e-6, 10)),
        ],
    )
    def test_what_is_swept(self, tmp_path, line, bounds):
        (tmp_path / "mine.py.j2").write_text(HEADER.format(line))
        found = load_plugin(tmp_path / "mine.py.j2")
        swept = found.template.sweep_of(found.candidate)
        assert (swept.name, swept.low, swept.high, swept.scale) == ("price", *bounds, "log")

    def test_only_factors_change_along(self, tmp_path):
        more = "[parameters.shift]\ndefault = 1.0\nlow = -3.0\nhigh = 3.0\n"
        text = HEADER.format('sweep = { parameter = "price", along = ["shift"] }\n' + more)
        (tmp_path / "mine.py.j2").write_text(text.replace("p.price *", "p.shift + p.price *"))
        with pytest.raises(TemplateError, match=r"sweep.along: bad parameter; expected parameters on a log"):
            load_plugin(tmp_path / "mine.py.j2")

    def test_between_which_slots_it_trades(self, tmp_path):
        two_pass = general_templates()["two_pass"].sweep
        assert (two_pass.loss, two_pass.weight, two_pass.along) == ("loss", "weight", ("first_price",))
        assert two_pass.price == "price"
        line = 'sweep = { parameter = "price", loss = "lost", weight = "share" }'
        slots = "".join(
            f'[slots.{name}]\ntype = "{kind}"\ndefault = "{default}"\n'
            for name, kind, default in (
                ("lost", "table", "np.exp(-model.bits)"),
                ("share", "score", "model.depth"),
            )
        )
        text = HEADER.format(f"{line}\n{slots}")
        (tmp_path / "mine.py.j2").write_text(text)
        sweep = load_plugin(tmp_path / "mine.py.j2").template.sweep
        assert (sweep.loss, sweep.weight, sweep.along) == ("lost", "share", ())

    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ('sweep = "prize"', "line 3, sweep: no such parameter; expected one of price, found 'prize'"),
            ("sweep = 3", "line 3, sweep: bad header; expected a table, found 3"),
            ('sweep = { parameter = "price", step = 3 }', "unknown key"),
            ('sweep = { parameter = "price", along = "price" }', "sweep.along: no such parameters"),
            ('sweep = { parameter = "price", along = ["prize"] }', "sweep.along: no such parameters"),
            ('sweep = { parameter = "price", along = [["price"]] }', "sweep.along: no such parameters"),
            ('sweep = { parameter = "price", price = "price" }', "sweep.price: no such slot"),
            ('sweep = { parameter = ["price"] }', "sweep: no such parameter"),
            ('sweep = { parameter = "price", loss = "loss" }', "expected both loss and weight"),
            (
                'sweep = { parameter = "price", loss = "loss", weight = "weight" }',
                "sweep.loss: no such slot; expected a slot that holds a table and reads nothing: there",
            ),
            ('sweep = { parameter = "price", low = 3, high = 2 }', "sweep: bad bounds"),
            ('sweep = { parameter = "price", low = "x" }', "sweep: bad bounds"),
            (
                'sweep = { parameter = "price", low = -1 }',
                "low: bad parameter; expected a positive number on a log scale",
            ),
            (
                'sweep = { parameter = "price", low = 1e4 }',
                "high: bad parameter; expected more than low = 10000",
            ),
        ],
    )
    def test_a_bad_sweep_is_an_error_with_its_line(self, tmp_path, line, words):
        (tmp_path / "mine.py.j2").write_text(HEADER.format(line))
        with pytest.raises(TemplateError) as caught:
            load_plugin(tmp_path / "mine.py.j2")
        assert words in str(caught.value)

    def test_a_rule_that_fills_a_template_cannot_say_it(self, tmp_path):
        text = '{#\ntemplate = "weighted"\nsweep = "price"\n[slots]\nweight = "model.depth"\n'
        (tmp_path / "mine.py.j2").write_text(text + 'loss = "np.exp(-model.bits)"\n#}\n')
        with pytest.raises(TemplateError, match="sweep: not for a rule to say; expected what template"):
            load_plugin(tmp_path / "mine.py.j2")

    def test_a_rule_without_the_swept_number_is_no_family(self):
        cheapest = general_templates()["cheapest"]
        assert cheapest.sweep_of(Candidate("cheapest", (("cost", "model.bits"),))) is None
        slots = (("cost", "model.bits + p.weight * model.loss"),)
        swept = cheapest.sweep_of(Candidate("cheapest", slots, (("weight", 3.0),)))
        assert (swept.default, swept.low, swept.high) == (3.0, 1e-6, 1e8)


def test_a_budget_is_fitted_by_what_the_rule_says_is_swept():
    model = measured_profile(5)
    rule = find_rule("pareto_optimal")
    assert rule.sweep == "weight"
    fitted = rule_within(rule, model, [parse_budget("avg_bits=4", model)])
    assert fitted.swept == "weight"
