"""Classical allocators: what each promises, and that none is better than the optimum."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from numpy.typing import NDArray
from strategies import profiles

from evolve.allocators import (
    best_lagrangian,
    greedy,
    integer_program,
    lagrangian,
    lagrangian_path,
    log_loss,
    uniform,
)
from evolve.optimum import optimum
from evolve.profiles import ModelProfile
from evolve.scoring import score

REFERENCE = Path(__file__).parents[1] / "datasets" / "reference"
EXPECTED = json.loads((Path(__file__).parent / "data" / "expected.json").read_text())
BITS = np.array([2.0, 4, 8, 16, 32])
Array = NDArray[np.float64]
Model = tuple[Array, Array, Array]
Allocator = Callable[[Array, Array, Array], NDArray[np.uint8]]


def published(name: str) -> Model:
    layers = json.loads((REFERENCE / f"{name}.json").read_text())["layers"]
    num_params = np.array([layer["num_params"] for layer in layers], dtype=float)
    return num_params, BITS, np.array([layer["sensitivity"] for layer in layers])


def fitness(allocation: NDArray[np.uint8], model: Model) -> float:
    return float(score(allocation, *model).fitness[0])


class TestAll:
    @settings(max_examples=40)
    @given(profile=profiles(max_layers=8, max_sensitivity=0.1))
    @pytest.mark.parametrize("allocate", [uniform, greedy, best_lagrangian])
    def test_never_better_than_the_optimum(self, allocate: Allocator, profile: ModelProfile) -> None:
        model = (profile.num_params, np.array([each.bits for each in profile.formats]), profile.sensitivity)
        allocation = allocate(*model)
        assert allocation.dtype == np.uint8
        assert allocation.shape == profile.num_params.shape
        assert fitness(allocation, model) <= optimum(*model).upper_bound * (1 + 1e-11)

    @pytest.mark.parametrize("allocate", [uniform, greedy, best_lagrangian])
    def test_one_format_is_uniform(self, allocate: Allocator) -> None:
        np.testing.assert_array_equal(allocate(np.ones(3), np.array([8.0]), np.full((3, 1), 0.01)), 0)

    @pytest.mark.parametrize("name", ["train", "valid", "test"])
    def test_each_one_improves_on_the_one_before(self, name: str) -> None:
        model = published(name)
        values = [fitness(allocate(*model), model) for allocate in (uniform, greedy, best_lagrangian)]
        assert values == sorted(values)


class TestUniform:
    @pytest.mark.parametrize(("name", "rule"), [("train", "fp32"), ("valid", "fp32"), ("test", "fp16")])
    def test_published_models(self, name: str, rule: str) -> None:
        model = published(name)
        assert fitness(uniform(*model), model) == pytest.approx(EXPECTED[f"uniform_{rule}"][name]["fitness"])

    def test_the_threshold_counts(self) -> None:
        model = ([10, 10], [4, 8], [[0.02, 0], [0.02, 0]])
        np.testing.assert_array_equal(uniform(*model, threshold=0.9), 0)
        np.testing.assert_array_equal(uniform(*model, threshold=0.97), 1)


class TestGreedy:
    def test_stops_where_nothing_is_gained(self) -> None:
        # The first layer can be lowered for free; one step of the second would fall off the cliff.
        found = greedy([10, 10], [4, 8, 16], [[0, 0, 0], [0.9, 0.5, 0]])
        np.testing.assert_array_equal(found, [0, 2])

    def test_lowers_the_cheapest_first(self) -> None:
        found = greedy([10, 10], [8, 16], [[0.001, 0], [0.03, 0]], threshold=0.96)
        np.testing.assert_array_equal(found, [0, 1])

    def test_of_equal_bits_the_most_accurate(self) -> None:
        found = greedy([10], [16, 8, 8, 16], [[0.1, 0.02, 0.001, 0]])
        np.testing.assert_array_equal(found, [2])

    def test_a_layer_without_weights_stays_wide(self) -> None:
        np.testing.assert_array_equal(greedy([0, 10], [4, 8], [[0.1, 0], [0, 0]]), [1, 0])

    def test_below_the_cliff_it_stays_wide(self) -> None:
        np.testing.assert_array_equal(greedy([10], [4, 8], [[0.7, 0.5]]), [1])


class TestLagrangian:
    def test_each_layer_minimises_the_same_sum(self) -> None:
        # Shares 0.25 and 0.75: 4 bits more are worth 1 and 3 average bits.
        loss = np.array([[0.1, 0], [0.1, 0]])
        np.testing.assert_array_equal(lagrangian([10, 30], [4, 8], loss, price=5), [0, 0])
        np.testing.assert_array_equal(lagrangian([10, 30], [4, 8], loss, price=20), [1, 0])
        np.testing.assert_array_equal(lagrangian([10, 30], [4, 8], loss, price=50), [1, 1])

    def test_no_price_is_the_narrowest_format(self) -> None:
        num_params, bits, sensitivity = published("train")
        np.testing.assert_array_equal(lagrangian(num_params, bits, log_loss(sensitivity), 0), 0)

    def test_every_vertex_of_the_path_has_its_price(self) -> None:
        num_params, bits, sensitivity = published("test")
        loss = log_loss(sensitivity)
        path = lagrangian_path(num_params[:, None] * bits, loss)
        for step in range(0, len(path.slopes) - 1, 7):
            price = (path.slopes[step] + path.slopes[step + 1]) / 2 / num_params.sum()
            found = lagrangian(num_params, bits, loss, price)
            np.testing.assert_array_equal(found, path.vertex(step + 1))

    def test_refuses_a_loss_of_another_shape(self) -> None:
        with pytest.raises(ValueError, match=r"loss: expected shape \(L, K\) = \(1, 2\), found \(2, 1\)"):
            lagrangian([1], [4, 8], [[0], [0]], 1)


class TestBestLagrangian:
    @pytest.mark.parametrize("name", ["train", "valid", "test"])
    def test_is_the_optimum_of_the_published_models(self, name: str) -> None:
        model = published(name)
        assert fitness(best_lagrangian(*model), model) == pytest.approx(optimum(*model).fitness, rel=1e-12)

    def test_is_the_best_vertex(self) -> None:
        rng = np.random.default_rng(1)
        model = (10 ** rng.uniform(1, 9, 30), BITS, np.sort(rng.random((30, 5)) ** 4 * 0.1)[:, ::-1])
        path = lagrangian_path(model[0][:, None] * BITS, log_loss(model[2]))
        vertices = np.stack([path.vertex(index) for index in range(len(path.costs))])
        assert fitness(best_lagrangian(*model), model) == score(vertices, *model).fitness.max()


class TestLagrangianPath:
    def test_totals_belong_to_the_vertices(self) -> None:
        rng = np.random.default_rng(2)
        cost, loss = rng.random((2, 40, 6))
        path = lagrangian_path(cost, loss)
        rows = np.arange(40)
        for index in range(len(path.costs)):
            vertex = path.vertex(index)
            assert path.costs[index] == pytest.approx(cost[rows, vertex].sum())
            assert path.losses[index] == pytest.approx(loss[rows, vertex].sum())
        assert (np.diff(path.slopes) <= 0).all()
        np.testing.assert_array_equal(path.vertex(len(path.slopes)), cost.argmin(axis=1))

    def test_points_on_a_line_are_one_step(self) -> None:
        path = lagrangian_path(np.array([[3.0, 2, 1, 1]]), np.array([[0.0, 1, 2, 3]]))
        np.testing.assert_array_equal(path.options, [2])

    def test_of_equal_losses_the_cheapest_comes_first(self) -> None:
        path = lagrangian_path(np.array([[3.0, 2, 5]]), np.array([[1.0, 1, 1]]))
        np.testing.assert_array_equal(path.start, [1])
        assert len(path.slopes) == 0


class TestIntegerProgram:
    def test_against_brute_force(self) -> None:
        rng = np.random.default_rng(3)
        num_params, bits, loss = np.round(10 ** rng.uniform(1, 6, 6)), BITS[:4], rng.random((6, 4))
        every = np.array(list(itertools.product(range(4), repeat=6)))
        rows = np.arange(6)
        for budget in loss.min(axis=1).sum() + np.array([0.1, 0.5, 1]):
            allowed = every[loss[rows, every].sum(axis=1) <= budget]
            least = (num_params * bits[allowed]).sum(axis=1).min()
            found = integer_program(num_params, bits, loss, budget)
            assert (num_params * bits[found]).sum() == least

    def test_budget_of_zero(self) -> None:
        np.testing.assert_array_equal(integer_program([1, 2], [4, 8], [[0, 0], [1, 0]], 0), [0, 1])

    def test_refuses_a_budget_out_of_reach(self) -> None:
        with pytest.raises(ValueError, match=r"loss_budget: expected at least 1.0, found 0.5"):
            integer_program([1], [4, 8], [[2, 1]], 0.5)
