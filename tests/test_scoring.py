"""Scores: the fast form against the loop that defines them, the cliff, and what is refused."""

from __future__ import annotations

import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from strategies import profiles

from evolve import scoring
from evolve.profiles import ModelProfile
from evolve.scoring import ROUNDING, Scores, ScoreTable, cliff_fitness, prepare, score, score_loop

REFERENCE = Path(__file__).parents[1] / "datasets" / "reference"
EXPECTED = json.loads((Path(__file__).parent / "data" / "expected.json").read_text())
BITS = np.array([2.0, 4, 8, 16, 32])
Model = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]


def random_model(rng: np.random.Generator, num_layers: int, num_formats: int, loss: float = 0.02) -> Model:
    num_params = np.round(10 ** rng.uniform(1, 9, num_layers))
    bits = np.sort(rng.choice(np.arange(1, 513) / 2, num_formats, replace=False))
    return num_params, bits, loss * rng.random((num_layers, num_formats))


def random_choices(rng: np.random.Generator, size: int, model: Model) -> NDArray[np.uint8]:
    return rng.integers(0, len(model[1]), (size, len(model[0])), dtype=np.uint8)


def arrays(scores: Scores) -> list[NDArray[np.float64]]:
    return [getattr(scores, field.name) for field in fields(scores)]


def assert_close(found: Scores, expected: Scores, tolerance: float = 1e-12) -> None:
    for left, right in zip(arrays(found), arrays(expected), strict=True):
        np.testing.assert_allclose(left, right, rtol=tolerance, atol=0)


def assert_identical(found: Scores, expected: Scores) -> None:
    for left, right in zip(arrays(found), arrays(expected), strict=True):
        np.testing.assert_array_equal(left, right, strict=True)


class TestDefinition:
    def test_by_hand(self) -> None:
        scores = score([[0, 1], [1, 1]], [30, 10], [8, 32], [[0.02, 0], [0.5, 0]])
        np.testing.assert_allclose(scores.compression_ratio, [1280 / 560, 1])
        np.testing.assert_allclose(scores.accuracy_retention, [0.98, 1])
        np.testing.assert_allclose(scores.avg_bits, [14, 32])
        np.testing.assert_allclose(scores.fitness, [1280 / 560 * 1.6, 2])

    @pytest.mark.parametrize("implementation", [score, score_loop])
    @pytest.mark.parametrize("split", ["train", "valid", "test"])
    def test_published_values(self, implementation: object, split: str) -> None:
        layers = json.loads((REFERENCE / f"{split}.json").read_text())["layers"]
        num_params = [layer["num_params"] for layer in layers]
        sensitivity = [layer["sensitivity"] for layer in layers]
        norm = np.array([layer["layer_type"] == "LayerNorm" for layer in layers])
        rules = {"uniform_int4": 1, "uniform_int8": 2, "uniform_fp16": 3, "uniform_fp32": 4}
        allocations = {name: np.full(len(layers), option) for name, option in rules.items()}
        allocations["layernorm_fp32_else_fp16"] = np.where(norm, 4, 3)
        scores = implementation(np.stack(list(allocations.values())), num_params, BITS, sensitivity)  # type: ignore[operator]
        expected = [EXPECTED[name][split] for name in allocations]
        np.testing.assert_allclose(
            scores.compression_ratio, [each["compression"] for each in expected], rtol=1e-12
        )
        np.testing.assert_allclose(
            scores.accuracy_retention, [each["accuracy"] for each in expected], rtol=1e-12
        )
        np.testing.assert_allclose(scores.fitness, [each["fitness"] for each in expected], rtol=1e-12)


class TestAgreementWithTheLoop:
    @settings(max_examples=60)
    @given(profile=profiles(max_layers=40), data=st.data())
    def test_any_profile(self, profile: ModelProfile, data: st.DataObject) -> None:
        rows = data.draw(st.integers(1, 5))
        rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
        L, K = profile.sensitivity.shape
        bits = [each.bits for each in profile.formats]
        arguments = (rng.integers(0, K, (rows, L)), profile.num_params, bits, profile.sensitivity)
        assert_close(score(*arguments), score_loop(*arguments))

    @pytest.mark.parametrize("num_formats", [1, 2, 3, 4, 5, 6, 8, 11, 16, 17, 24, 33, 64, 181, 256])
    def test_any_number_of_formats(self, num_formats: int) -> None:
        rng = np.random.default_rng(num_formats)
        for num_layers in (1, 7, 8, 9, 131):
            for loss in (0.0005, 0.02, 0.99):
                model = random_model(rng, num_layers, num_formats, loss)
                choices = random_choices(rng, 10, model)
                choices[0], choices[1] = 0, num_formats - 1
                assert_close(score(choices, *model), score_loop(choices, *model))

    @pytest.mark.parametrize("threshold", [0, 0.5, 0.99])
    def test_any_threshold(self, threshold: float) -> None:
        rng = np.random.default_rng(1)
        model = random_model(rng, 40, 5, 0.001)
        choices = random_choices(rng, 20, model)
        assert_close(score(choices, *model, threshold), score_loop(choices, *model, threshold))

    def test_total_bits_are_exact(self) -> None:
        rng = np.random.default_rng(2)
        model = random_model(rng, 131, 9)
        choices = random_choices(rng, 50, model)
        total = (model[0] * model[1][choices]).sum(axis=1)
        np.testing.assert_array_equal(score(choices, *model).compression_ratio, 32 * model[0].sum() / total)


class TestIndependence:
    """The score of an allocation depends on nothing but the allocation and its model."""

    @pytest.mark.parametrize("num_formats", [1, 2, 5, 24, 64])
    def test_of_the_population(self, num_formats: int) -> None:
        rng = np.random.default_rng(3)
        model = random_model(rng, 131, num_formats)
        choices = random_choices(rng, 37, model)
        table = prepare(*model)
        whole = table.score(choices)
        rows = [table.score(row) for row in choices]
        for index, array in enumerate(arrays(whole)):
            np.testing.assert_array_equal(array, np.concatenate([arrays(row)[index] for row in rows]))

    def test_of_the_chunks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rng = np.random.default_rng(4)
        model = random_model(rng, 131, 5)
        choices = random_choices(rng, 103, model)
        whole = score(choices, *model)
        for chunk in (1, 1000, 10_000):
            monkeypatch.setattr(scoring, "_CHUNK_CHOICES", chunk)
            assert_identical(score(choices, *model), whole)

    def test_of_earlier_and_concurrent_calls(self) -> None:
        rng = np.random.default_rng(11)
        model = random_model(rng, 131, 5)
        populations = [random_choices(rng, size, model) for size in (40, 3, 90, 1, 40)] * 4
        expected = [score(each, *model) for each in populations]
        table = prepare(*model)
        with ThreadPoolExecutor(4) as threads:
            for found, alone in zip(threads.map(table.score, populations), expected, strict=True):
                assert_identical(found, alone)
        for each, alone in zip(populations, expected, strict=True):
            assert_identical(table.score(each), alone)
        assert_identical(pickle.loads(pickle.dumps(table)).score(populations[0]), expected[0])
        assert len(pickle.dumps(table)) == len(pickle.dumps(prepare(*model)))

    def test_of_the_memory_layout(self) -> None:
        rng = np.random.default_rng(5)
        model = random_model(rng, 50, 5)
        choices = random_choices(rng, 20, model)
        whole = score(choices, *model)
        for same in (np.asfortranarray(choices), choices.astype(np.int64), choices.tolist()):
            assert_identical(score(same, *model), whole)
        assert_identical(score(np.repeat(choices, 2, axis=0)[::2], *model), whole)

    def test_of_the_packing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        rng = np.random.default_rng(6)
        model = random_model(rng, 131, 3)
        choices = random_choices(rng, 20, model)
        whole = score(choices, *model)
        sizes = set()
        for limit in (0, 1 << 15, 1 << 16, 1 << 22):
            monkeypatch.setattr(scoring, "_TABLE_BYTES", limit)
            table = prepare(*model)
            sizes.add(table.group_size)
            assert_identical(table.score(choices), whole)
        assert sizes == {1, 2, 4, 8}


class TestStack:
    def stack(self) -> tuple[list[Model], ScoreTable]:
        rng = np.random.default_rng(7)
        bits = np.array([2, 4, 4.5, 8, 16, 32])
        models = []
        for num_layers in (1, 27, 99, 8, 131, 2):
            num_params, _, sensitivity = random_model(rng, num_layers, len(bits))
            models.append((num_params, bits, sensitivity))
        offsets = np.cumsum([0, *(len(model[0]) for model in models)])
        params, _, losses = zip(*models, strict=True)
        return models, prepare(np.concatenate(params), bits, np.concatenate(losses), offsets)

    def test_is_its_models_side_by_side(self) -> None:
        models, table = self.stack()
        rng = np.random.default_rng(8)
        choices = rng.integers(0, 6, (33, table.offsets[-1]), dtype=np.uint8)
        found = table.score(choices)
        for index, model in enumerate(models):
            begin, end = table.offsets[index : index + 2]
            alone = score(choices[:, begin:end], *model)
            assert_identical(Scores(*(array[:, index] for array in arrays(found))), alone)

    def test_of_one_model_keeps_its_axis(self) -> None:
        model = random_model(np.random.default_rng(9), 10, 5)
        choices = random_choices(np.random.default_rng(10), 4, model)
        found = prepare(*model, offsets=[0, 10]).score(choices)
        assert found.fitness.shape == (4, 1)
        assert_identical(Scores(*(array[:, 0] for array in arrays(found))), score(choices, *model))

    @pytest.mark.parametrize("offsets", [[0, 5], [1, 10], [0, 5, 5, 10], [0, 7, 3, 10], [0.0, 10.0], [10], 0])
    def test_refuses_bad_offsets(self, offsets: object) -> None:
        model = random_model(np.random.default_rng(9), 10, 5)
        with pytest.raises(ValueError, match=r"offsets: expected integers .* from 0 to N = 10, found"):
            prepare(*model, offsets=offsets)  # type: ignore[arg-type]


class TestCliff:
    def test_both_sides(self) -> None:
        fitness = cliff_fitness([4, 4, 4, 4], [1, 0.95, 0.94, 0])
        np.testing.assert_allclose(fitness, [8, 4, 0.094, 0])

    @pytest.mark.parametrize("implementation", [score, score_loop])
    def test_exactly_on_the_threshold_counts_as_reaching_it(self, implementation: object) -> None:
        # 1 - 0.05 and the product of the twenty factors are 0.95 up to rounding.
        for sensitivity in ([[0.05]], [[1 - 0.95 ** (1 / 20)]] * 20):
            choices = np.zeros((1, len(sensitivity)), dtype=np.uint8)
            scores = implementation(choices, np.ones(len(sensitivity)), [8], sensitivity)  # type: ignore[operator]
            np.testing.assert_allclose(scores.fitness, 4)

    @pytest.mark.parametrize("implementation", [score, score_loop])
    def test_below_the_threshold_by_more_than_rounding(self, implementation: object) -> None:
        sensitivity = [[1 - 0.95 * (1 - 3 * ROUNDING)]]
        scores = implementation([[0]], [1], [8], sensitivity)  # type: ignore[operator]
        np.testing.assert_allclose(scores.fitness, 0.095)

    @pytest.mark.parametrize("implementation", [score, score_loop])
    def test_a_layer_that_retains_nothing(self, implementation: object) -> None:
        scores = implementation([[0, 0], [1, 0]], [1, 1], [8, 16], [[1, 0], [0, 0]])  # type: ignore[operator]
        np.testing.assert_array_equal(scores.accuracy_retention, [0, 1])
        assert scores.fitness[0] == 0

    @pytest.mark.parametrize("threshold", [1, -0.1, float("nan")])
    def test_refuses_other_thresholds(self, threshold: float) -> None:
        with pytest.raises(ValueError, match=r"threshold: expected a number in \[0, 1\), found"):
            cliff_fitness([1], [1], threshold)


class TestInput:
    MODEL = ([10, 20, 30], [4, 8], [[0.1, 0], [0.1, 0], [0.1, 0]])

    def test_one_allocation_is_a_population_of_one(self) -> None:
        assert_identical(score([0, 1, 0], *self.MODEL), score([[0, 1, 0]], *self.MODEL))
        assert score([0, 1, 0], *self.MODEL).fitness.shape == (1,)

    def test_nobody(self) -> None:
        nobody = np.zeros((0, 3), dtype=np.uint8)
        assert score(nobody, *self.MODEL).fitness.shape == (0,)
        assert score_loop(nobody, *self.MODEL).fitness.shape == (0,)

    def test_the_callers_choices_stay_as_they_are(self) -> None:
        choices = np.ones((5, 8), dtype=np.uint8)
        score(choices, np.ones(8), [4, 8], np.zeros((8, 2)))
        assert (choices == 1).all()

    @pytest.mark.parametrize(
        ("choices", "message"),
        [
            ([[0, 1, 2]], "choices: expected format indices 0 to 1, found 2"),
            ([[0, -1, 1]], "choices: expected format indices 0 to 1, found -1"),
            ([[0, 1]], r"choices: expected shape \(P, L\) with L = 3, found \(1, 2\)"),
            ([[[0, 1, 1]]], r"choices: expected shape \(P, L\) with L = 3, found \(1, 1, 3\)"),
            ([[0.0, 1.0, 1.0]], "choices: expected integers, found float64"),
        ],
    )
    def test_refuses_bad_choices(self, choices: object, message: str) -> None:
        for implementation in (score, score_loop):
            with pytest.raises(ValueError, match=message):
                implementation(choices, *self.MODEL)  # type: ignore[arg-type]

    @pytest.mark.parametrize(
        ("index", "value", "message"),
        [
            (0, [10, 20], r"sensitivity: expected shape \(L, K\) = \(2, 2\), found \(3, 2\)"),
            (0, [[10]], r"num_params: expected shape \(L,\) with L ≥ 1, found \(1, 1\)"),
            (0, [10, -1, 20], r"num_params: expected finite numbers ≥ 0, found \[-1.\]"),
            (0, [0, 0, 0], "num_params: expected at least one weight in each model"),
            (1, [], r"bits: expected shape \(K,\), K from 1 to 256, found \(0,\)"),
            (1, [0, 8], r"bits: expected finite numbers > 0, found \[0.\]"),
            (2, [[0, 0], [0, 0], [0, 1.5]], r"sensitivity: expected numbers in \[0, 1\], found \[1.5\]"),
            (2, [[0, 0], [0, 0], [0, np.nan]], r"sensitivity: expected numbers in \[0, 1\], found \[nan\]"),
        ],
    )
    def test_refuses_bad_tables(self, index: int, value: object, message: str) -> None:
        tables: list[object] = list(self.MODEL)
        tables[index] = value
        with pytest.raises(ValueError, match=message):
            prepare(*tables)  # type: ignore[arg-type]
