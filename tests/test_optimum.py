"""The optimum: against published values, brute force and an independent solver; its certificate."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from strategies import profiles

from evolve.allocators import integer_program
from evolve.optimum import Optimum, frontier, minimise_cost, minimise_loss, optimum
from evolve.profiles import ModelProfile
from evolve.scoring import score

REFERENCE = Path(__file__).parents[1] / "datasets" / "reference"
HAWQ = json.loads((Path(__file__).parent / "data" / "hawqv3_resnet18.json").read_text())
BITS = np.array([2.0, 4, 8, 16, 32])
Array = NDArray[np.float64]
Model = tuple[Array, Array, Array]


def published(name: str) -> Model:
    layers = json.loads((REFERENCE / f"{name}.json").read_text())["layers"]
    num_params = np.array([layer["num_params"] for layer in layers], dtype=float)
    return num_params, BITS, np.array([layer["sensitivity"] for layer in layers])


def random_model(rng: np.random.Generator, num_layers: int, bits: Array, steepness: float = 2.0) -> Model:
    """Sizes from 10 to a billion; the loss falls with the bits, with noise, so not always."""
    num_params = np.round(10 ** rng.uniform(1, 9, num_layers))
    height = 10 ** rng.uniform(-3, 0, (num_layers, 1)) / num_layers
    noise = rng.uniform(0.5, 1.5, (num_layers, len(bits)))
    return num_params, bits, 1 - np.exp(-8 * height * noise * steepness**-bits)


def cliff_model(rng: np.random.Generator, num_layers: int) -> Model:
    """A model whose optimum sits at the cliff: a bit saved costs about the same loss in every layer."""
    num_params = np.round(10 ** rng.uniform(3, 6, num_layers))
    loss = 0.08 * num_params / num_params.sum() * rng.uniform(0.5, 1.5, num_layers)
    return num_params, np.array([1.0, 16]), np.stack([1 - np.exp(-loss), np.zeros(num_layers)], axis=1)


def all_allocations(num_layers: int, num_formats: int) -> NDArray[np.uint8]:
    every = itertools.product(range(num_formats), repeat=num_layers)
    return np.array(list(every), dtype=np.uint8)


def assert_proven(found: Optimum) -> None:
    assert found.upper_bound == found.fitness


def assert_is_the_best(found: Optimum, model: Model, threshold: float = 0.95) -> None:
    every = all_allocations(len(model[0]), len(model[1]))
    np.testing.assert_allclose(found.fitness, score(every, *model, threshold).fitness.max(), rtol=2e-12)


def assert_consistent(found: Optimum, model: Model, threshold: float = 0.95) -> None:
    """The allocation has the scores that are stated."""
    scores = score(found.allocation, *model, threshold)
    assert found.allocation.dtype == np.uint8
    assert found.fitness == scores.fitness[0]
    assert found.compression_ratio == scores.compression_ratio[0]
    assert found.accuracy_retention == scores.accuracy_retention[0]
    assert found.upper_bound >= found.fitness


class TestPublishedModels:
    @pytest.mark.parametrize(("name", "fitness"), [("train", 3.2392), ("valid", 3.4127), ("test", 4.2731)])
    def test_fitness(self, name: str, fitness: float) -> None:
        model = published(name)
        found = optimum(*model)
        assert found.fitness == pytest.approx(fitness, abs=5e-5)
        assert_proven(found)
        assert_consistent(found, model)


class TestAgainstBruteForce:
    @settings(max_examples=150)
    @given(
        profile=profiles(max_layers=6, max_formats=4, max_sensitivity=0.2),
        threshold=st.sampled_from([0.95, 0.9, 0.5, 0.0]),
    )
    def test_any_profile(self, profile: ModelProfile, threshold: float) -> None:
        bits = np.array([each.bits for each in profile.formats])
        model = (profile.num_params, bits, profile.sensitivity)
        found = optimum(*model, threshold=threshold)
        assert_consistent(found, model, threshold)
        assert_is_the_best(found, model, threshold)
        assert found.upper_bound <= found.fitness * (1 + 1e-11)

    @pytest.mark.parametrize("num_formats", range(1, 7))
    def test_every_number_of_formats(self, num_formats: int) -> None:
        rng = np.random.default_rng(num_formats)
        num_layers = {1: 8, 2: 8, 3: 8, 4: 6, 5: 6, 6: 5}[num_formats]
        for _ in range(30):
            bits = rng.choice([1, 2, 3, 4, 4.5, 8, 16, 32], num_formats)  # also equal ones
            model = random_model(rng, num_layers, bits, steepness=rng.choice([1.1, 1.5, 2]))
            found = optimum(*model)
            assert_proven(found)
            assert_consistent(found, model)
            assert_is_the_best(found, model)

    def test_at_the_cliff(self) -> None:
        rng = np.random.default_rng(1)
        at_the_cliff = 0
        for _ in range(40):
            model = cliff_model(rng, 11)
            found = optimum(*model)
            assert_proven(found)
            assert_is_the_best(found, model)
            at_the_cliff += not np.isclose(frontier(*model)[1], found.accuracy_retention, rtol=1e-9).any()
        assert at_the_cliff >= 20  # no Lagrangian allocation is optimal there: a search was needed

    def test_tied_layers(self) -> None:
        rng = np.random.default_rng(2)
        ties = [[0, 3], [5, 1, 4]]
        for _ in range(20):
            model = cliff_model(rng, 7)
            every = all_allocations(7, 2)
            tied = (every[:, 0] == every[:, 3]) & (every[:, [1, 4]] == every[:, [5]]).all(axis=1)
            found = optimum(*model, tied_layers=ties)
            np.testing.assert_allclose(found.fitness, score(every[tied], *model).fitness.max(), rtol=1e-12)
            assert found.allocation[0] == found.allocation[3]
            assert len(set(found.allocation[[1, 4, 5]])) == 1


class TestSpecialCases:
    def test_no_allocation_reaches_the_threshold(self) -> None:
        num_params, _, sensitivity = published("train")
        model = (num_params, BITS[:2], sensitivity[:, :2])
        found = optimum(*model)
        assert_proven(found)
        np.testing.assert_array_equal(found.allocation, 1)
        assert found.fitness == pytest.approx(0.1 * np.prod(1 - sensitivity[:, 1]))

    def test_equally_accurate_formats_below_the_threshold(self) -> None:
        found = optimum([10, 10], [8, 4, 4], [[0.5, 0.5, 0.5], [0.3, 0.3, 0.3]])
        np.testing.assert_array_equal(found.allocation, [1, 1])

    def test_one_format(self) -> None:
        model = published("test")
        found = optimum(model[0], [16], model[2][:, 3:4])
        assert_proven(found)
        assert found.fitness == score(np.full(27, 3), *model).fitness[0]

    def test_one_layer(self) -> None:
        found = optimum([1000], BITS, [[0.9, 0.3, 0.001, 0, 0]])
        assert_proven(found)
        np.testing.assert_array_equal(found.allocation, [2])

    def test_nothing_loses_anything(self) -> None:
        found = optimum([10, 20, 30], BITS, np.zeros((3, 5)))
        assert_proven(found)
        assert found.fitness == 32
        np.testing.assert_array_equal(found.allocation, 0)

    def test_a_layer_that_retains_nothing(self) -> None:
        found = optimum([10, 20], [4, 8], [[1, 0], [0, 0]])
        np.testing.assert_array_equal(found.allocation, [1, 0])
        assert optimum([10, 20], [4, 8], [[1, 1], [0, 0]]).fitness == 0

    def test_a_layer_without_weights_takes_what_is_most_accurate(self) -> None:
        found = optimum([0, 20], [4, 8], [[0.01, 0], [0, 0]])
        np.testing.assert_array_equal(found.allocation, [1, 0])

    def test_exactly_on_the_threshold(self) -> None:
        found = optimum([10] * 20, [1, 32], [[1 - 0.95 ** (1 / 20), 0]] * 20)
        np.testing.assert_array_equal(found.allocation, 0)
        assert found.fitness == pytest.approx(32)

    def test_formats_so_wide_that_below_the_cliff_may_be_better(self) -> None:
        found = optimum([1, 1], [400, 1000], [[0.06, 0], [0.06, 0]])
        assert_consistent(found, (np.ones(2), np.array([400.0, 1000]), np.array([[0.06, 0], [0.06, 0]])))
        assert found.upper_bound >= score([0, 0], [1, 1], [400, 1000], [[0.06, 0], [0.06, 0]]).fitness[0]

    def test_same_answer_every_time(self) -> None:
        model = cliff_model(np.random.default_rng(3), 60)
        first, second = optimum(*model), optimum(*model)
        np.testing.assert_array_equal(first.allocation, second.allocation)

    def test_refuses_bad_input(self) -> None:
        with pytest.raises(ValueError, match=r"threshold: expected a number in \[0, 1\), found 1"):
            optimum([1], [8], [[0]], threshold=1)
        with pytest.raises(ValueError, match="sensitivity: expected shape"):
            optimum([1], [8], [[0, 0]])
        for ties in ([[0, 1]], [[0], [0]], [[-1]]):
            with pytest.raises(ValueError, match="tied_layers: expected each of 0 to 0 at most once, found"):
                optimum([1], [8], [[0]], tied_layers=ties)


class TestCertificate:
    @pytest.mark.parametrize("num_layers", [100, 300, 500])
    def test_large_models_are_proven(self, num_layers: int) -> None:
        rng = np.random.default_rng(num_layers)
        for bits in (BITS, BITS[:3], np.array([1.0, 16])):
            model = random_model(rng, num_layers, bits, steepness=1.2)
            found = optimum(*model)
            assert_consistent(found, model)
            assert_proven(found)

    @pytest.mark.parametrize("state_limit", [1, 2, 20])
    def test_holds_when_the_states_do_not_suffice(self, state_limit: int) -> None:
        rng = np.random.default_rng(4)
        gaps = []
        for _ in range(20):
            model = cliff_model(rng, 40)
            exact, hurried = optimum(*model), optimum(*model, state_limit=state_limit)
            assert_proven(exact)
            assert_consistent(hurried, model)
            assert hurried.fitness <= exact.fitness * (1 + 1e-12)
            assert hurried.upper_bound >= exact.fitness * (1 - 1e-12)
            gaps.append(hurried.upper_bound / hurried.fitness - 1)
        assert max(gaps) < 0.1
        assert (max(gaps) > 0) == (state_limit < 20)  # what the smaller limits drop opens a gap


class TestBudgets:
    @settings(max_examples=150)
    @given(data=st.data(), shape=st.tuples(st.integers(1, 5), st.integers(1, 4)))
    def test_against_brute_force(self, data: st.DataObject, shape: tuple[int, int]) -> None:
        numbers = st.integers(-3, 20) | st.floats(-5, 100).map(lambda number: round(number, 3))
        cost, loss = (
            np.array(data.draw(st.lists(numbers, min_size=shape[0] * shape[1], max_size=shape[0] * shape[1])))
            .reshape(shape)
            .astype(float)
            for _ in range(2)
        )
        budget = data.draw(numbers)
        every = all_allocations(*shape)
        rows = np.arange(shape[0])
        costs, losses = cost[rows, every].sum(axis=1), loss[rows, every].sum(axis=1)
        assume(not (np.abs(losses - budget) < 1e-9).any() or float(budget).is_integer())
        within = losses <= budget + 1e-12 * abs(budget)
        if not within.any():
            with pytest.raises(ValueError, match="budget: expected at least"):
                minimise_cost(cost, loss, budget)
            return
        found = minimise_cost(cost, loss, budget)
        assert found.cost == pytest.approx(costs[within].min(), rel=1e-11, abs=1e-11)
        assert found.bound == pytest.approx(found.cost, rel=1e-11, abs=1e-11)
        assert found.loss <= budget + 1e-11 * max(1, abs(budget))
        assert found.cost == pytest.approx(cost[rows, found.allocation].sum())
        assert found.loss == pytest.approx(loss[rows, found.allocation].sum())

    @pytest.mark.parametrize("num_layers", [20, 40, 80])
    def test_against_an_integer_program(self, num_layers: int) -> None:
        rng = np.random.default_rng(num_layers)
        for _ in range(3):
            num_params, bits, sensitivity = random_model(rng, num_layers, BITS, steepness=1.2)
            cost, loss = num_params[:, None] * bits, -np.log1p(-sensitivity)
            reachable = loss.min(axis=1).sum(), loss[:, 0].sum()
            budget = float(np.dot(reachable, [0.8, 0.2]))
            found = minimise_cost(cost, loss, budget)
            other = integer_program(num_params, bits, loss, budget)
            assert found.bound == found.cost
            assert found.cost == pytest.approx(cost[np.arange(num_layers), other].sum(), rel=1e-9)

    def test_cost_and_loss_exchanged(self) -> None:
        num_params, bits, sensitivity = published("test")
        cost, loss = num_params[:, None] * bits, -np.log1p(-sensitivity)
        cheapest = minimise_cost(cost, loss, 0.04)
        best = minimise_loss(cost, loss, cheapest.cost)
        assert best.loss <= cheapest.loss
        assert best.bound == best.loss
        assert best.cost == cheapest.cost

    def test_the_bound_holds_when_the_states_do_not_suffice(self) -> None:
        num_params, bits, sensitivity = random_model(np.random.default_rng(5), 60, BITS, 1.2)
        cost, loss = num_params[:, None] * bits, -np.log1p(-sensitivity)
        budget = 0.2 * float(loss[:, 0].sum())
        exact, hurried = (minimise_cost(cost, loss, budget, state_limit=limit) for limit in (10_000, 1))
        assert hurried.bound <= exact.bound <= exact.cost <= hurried.cost

    def test_refuses_bad_input(self) -> None:
        with pytest.raises(ValueError, match=r"loss: expected shape \(L, K\) = \(1, 2\), found \(2, 1\)"):
            minimise_cost([[1, 2]], [[1], [2]], 3)
        with pytest.raises(ValueError, match="cost: expected finite numbers"):
            minimise_cost([[np.nan, 2]], [[1, 2]], 3)
        with pytest.raises(ValueError, match=r"budget: expected at least 1.0, .*, found 0.5"):
            minimise_cost([[1, 2]], [[1, 2]], 0.5)


class TestMeasuredNetwork:
    """A ResNet-18 with published measurements and separately proven optima (HAWQ-V3, Yao 2021)."""

    @staticmethod
    def cost(budget: str, layer: dict[str, Any], name: str) -> float:
        bits = {"INT4": 4, "INT8": 8}[name]
        if budget == "model_size":
            return float(layer["num_params"] * bits / 8 / 1e6)
        if budget == "bops":
            return float(layer["million_operations"] * bits * bits / 1024)
        return float(layer["latency_ms"][name])

    @pytest.mark.parametrize("budget", ["model_size", "bops", "latency"])
    def test_proven_allocation(self, budget: str) -> None:
        layers, names = HAWQ["layers"], HAWQ["formats"]
        cost = np.array([[self.cost(budget, layer, name) for name in names] for layer in layers])
        loss = np.array(
            [
                [layer["hessian_trace_per_param"] * layer["squared_weight_error"][name] for name in names]
                for layer in layers
            ]
        )
        expected = HAWQ["optimal"][budget]
        found = minimise_loss(cost, loss, expected["limit"], tied_layers=HAWQ["tied_layers"])
        np.testing.assert_array_equal(np.array([4, 8])[found.allocation], expected["bits"])
        assert found.cost == pytest.approx(expected["cost"], rel=1e-9)
        assert found.loss == pytest.approx(expected["loss"], rel=1e-9)
        assert found.bound == found.loss


class TestFrontier:
    def test_reaches_from_the_most_accurate_to_the_smallest(self) -> None:
        num_params, bits, sensitivity = published("valid")
        avg_bits, retention = frontier(num_params, bits, sensitivity)
        assert (avg_bits[0], retention[0]) == (32, 1)
        assert avg_bits[-1] == pytest.approx(2)
        assert retention[-1] == pytest.approx(np.prod(1 - sensitivity[:, 0]))
        assert (np.diff(avg_bits) < 0).all()
        assert (np.diff(retention) < 0).all()

    def test_is_convex_in_the_log(self) -> None:
        avg_bits, retention = frontier(*random_model(np.random.default_rng(6), 200, BITS))
        loss = -np.log(retention)
        saved, added = -np.diff(avg_bits), np.diff(loss)
        assert (saved[1:] * added[:-1] <= saved[:-1] * added[1:] * (1 + 1e-6) + 1e-15).all()

    def test_no_allocation_lies_beyond(self) -> None:
        model = random_model(np.random.default_rng(7), 6, BITS[:4])
        avg_bits, retention = frontier(*model)
        scores = score(all_allocations(6, 4), *model)
        loss = -np.log(scores.accuracy_retention)
        least_bits = np.interp(loss, -np.log(retention), avg_bits)
        assert (scores.avg_bits >= least_bits - 1e-9).all()

    def test_one_format_is_one_point(self) -> None:
        avg_bits, retention = frontier([10, 20], [4], [[0.1], [0.2]])
        np.testing.assert_allclose(avg_bits, [4])
        np.testing.assert_allclose(retention, [0.72])
