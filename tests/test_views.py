"""The model view: what a rule reads, alone or with other models in view."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import numbers, profiles

from evolve.errors import InputError, RuleError, SignalError
from evolve.formats import get_formats
from evolve.profiles import LAYER_TYPES, ModelProfile
from evolve.signals import LEVELS, PER_LAYER_SIGNALS
from evolve.synthetic import generate
from evolve.views import ModelView

PER_LAYER = tuple(PER_LAYER_SIGNALS)
SCORES = ("gradient_sensitivity", "weight_mean", "num_params", "relative_position")


@st.composite
def models(draw: st.DrawFn) -> list[ModelProfile]:
    """One to four models with the same formats."""
    first = draw(profiles(max_layers=8, max_formats=4))
    K = len(first.formats)
    others = draw(st.lists(profiles(max_layers=8, min_formats=K, max_formats=K), max_size=3))
    return [first, *(replace(each, formats=first.formats) for each in others)]


@st.composite
def scores(draw: st.DrawFn, N: int) -> np.ndarray:
    """(N,) or (P, N) numbers, many of them equal."""
    values = st.sampled_from([0.0, 0.25, 1.0]) | numbers(-5, 5)
    P = draw(st.sampled_from([None, 1, 3]))
    shape = (N,) if P is None else (P, N)
    size = int(np.prod(shape))
    return np.array(draw(st.lists(values, min_size=size, max_size=size))).reshape(shape)


def small(**changes) -> ModelProfile:
    L = 5
    values = {
        "name": "small",
        "formats": get_formats(["INT4", "INT8", "FP16", "FP32"]),
        "layer_type": ("Embedding", "Attention", "LayerNorm", "Linear", "Classifier"),
        "layer_index": np.arange(L),
        "num_params": np.array([10, 20, 5, 40, 25]),
        "weight_mean": np.zeros(L),
        "weight_std": np.full(L, 0.02),
        "weight_range": np.full(L, 0.1),
        "activation_range": np.array([1.0, 2.0, 3.0, 4.0, 5.0]),
        "gradient_sensitivity": np.array([0.5, 0.2, 0.9, 0.2, 0.5]),
        "sensitivity": np.array(
            [
                [0.3, 0.02, 0.001, 0],
                [0.2, 0.01, 0, 0],
                [0.5, 0.1, 0.01, 0],
                [0.1, 0, 0, 0],
                [0.4, 0.3, 0.2, 0],
            ]
        ),
    }
    return ModelProfile(**values | changes)


def reads_of(view: ModelView, score: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Everything a rule can get out of a view, by name; the last axis is the layers'."""
    table = view.loss * (1 + abs(score)) if score.ndim == 2 else view.loss
    found = {name: getattr(view, name) for name in PER_LAYER}
    found |= {f"sensitivity {name}": view.sensitivity(name) for name in view.formats}
    found |= {name: getattr(view, name)(score) for name in ("total", "mean", "largest", "rank")}
    return found | {
        "is_type": view.is_type("Linear", "LayerNorm"),
        "by_type": view.by_type(2.0, Linear=0.5, LayerNorm=np.array([[3.0], [4.0]])),
        "loss": view.loss,
        "fraction": view.fraction(score > 0.25),
        "share_below": view.share_below(abs(weights) + 1, score),
        "where": view.where(score > 0.25, view.formats[0], view.formats[-1]),
        "select": view.select(
            (score > 0.25, view.formats[0]), (view.is_type("Linear"), view.formats[-1]), otherwise="INT8"
        )
        if "INT8" in view.formats
        else view.select(otherwise=view.formats[0]),
        "cheapest": view.cheapest(view.bits / 32 + table),
        "narrowest": view.narrowest(table < 0.1),
    }


@given(st.data())
@settings(max_examples=60)
def test_models_side_by_side_read_exactly_as_each_alone(data):
    members = data.draw(models())
    together = ModelView(members)
    score = data.draw(scores(together.num_layers))
    weights = data.draw(scores(together.num_layers))
    weights = weights if weights.ndim == 1 else weights[0]
    stacked = reads_of(together, score, weights)
    for first, end, member in zip(together.offsets, together.offsets[1:], members, strict=False):
        alone = reads_of(ModelView([member]), score[..., first:end], weights[first:end])
        for name, value in alone.items():
            np.testing.assert_array_equal(stacked[name][..., first:end], value, err_msg=name)


@given(st.data())
@settings(max_examples=60)
def test_reductions_are_what_plain_loops_find(data):
    members = data.draw(models())
    view = ModelView(members)
    score = data.draw(scores(view.num_layers))
    sizes = view.num_params
    found = {
        "total": view.total(score),
        "mean": view.mean(score),
        "largest": view.largest(score),
        "fraction": view.fraction(score > 0.25),
        "rank": view.rank(score),
        "share_below": view.share_below(sizes, score),
    }
    for p, row in enumerate(np.atleast_2d(score)):
        for first, end, member in zip(view.offsets, view.offsets[1:], members, strict=False):
            values = row[first:end].tolist()
            # Lower values first; of equal ones, the layer that comes first in the model.
            keys = list(zip(values, member.layer_index.tolist(), strict=True))
            for layer, key in enumerate(keys):
                expected = {
                    "total": sum(values),
                    "mean": sum(values) / len(values),
                    "largest": max(values),
                    "fraction": sum(value > 0.25 for value in values) / len(values),
                    "rank": sum(other < key for other in keys) / max(len(values) - 1, 1),
                    "share_below": sum(
                        size
                        for size, other in zip(member.num_params.tolist(), keys, strict=True)
                        if other <= key
                    )
                    / member.total_params,
                }
                for name, value in expected.items():
                    at = np.atleast_2d(found[name])[p, first + layer]
                    assert at == pytest.approx(value, abs=1e-9), name


def test_equal_values_rank_in_the_order_of_the_model():
    view = ModelView([small()])
    assert view.rank(view.gradient_sensitivity).tolist() == [0.5, 0.0, 1.0, 0.25, 0.75]
    backwards = ModelView([small(layer_index=np.arange(5)[::-1])])
    assert backwards.rank(backwards.gradient_sensitivity).tolist() == [0.75, 0.25, 1.0, 0.0, 0.5]


def test_a_number_by_type_is_that_of_the_layers_type():
    view = ModelView([small()])
    assert view.by_type(9.0, LayerNorm=1.0, Embedding=2.0).tolist() == [2.0, 9.0, 1.0, 9.0, 9.0]
    both = view.by_type(np.array([[9.0], [8.0]]), Linear=np.array([[1.0], [2.0]]))
    assert both.tolist() == [[9.0, 9.0, 9.0, 1.0, 9.0], [8.0, 8.0, 8.0, 2.0, 8.0]]
    with pytest.raises(RuleError, match=r"is_type: expected one of Embedding.*found 'Dense'"):
        view.by_type(1.0, Dense=2.0)


def test_share_below_counts_the_layer_itself():
    view = ModelView([small()])
    assert view.share_below(view.num_params, view.activation_range).tolist() == [0.1, 0.3, 0.35, 0.75, 1.0]


@given(profiles())
def test_edge_distance_is_the_distance_from_the_nearer_end(profile):
    distance = ModelView([profile]).edge_distance
    expected = np.minimum(profile.relative_position, 1 - profile.relative_position)
    np.testing.assert_allclose(distance, expected if profile.num_layers > 1 else [0.0], atol=1e-15)
    # The two ends are exactly symmetric.
    in_order = distance[np.argsort(profile.layer_index)]
    np.testing.assert_array_equal(in_order, in_order[::-1])


@given(profiles(), st.data())
def test_choices_are_what_plain_loops_choose(profile, data):
    view = ModelView([profile])
    K, L = len(profile.formats), profile.num_layers
    names = [data.draw(st.sampled_from(view.formats)) for _ in range(3)]
    first, second = (
        np.array(data.draw(st.lists(st.booleans(), min_size=L, max_size=L)), dtype=bool) for _ in "ab"
    )
    cost = np.array(data.draw(st.lists(st.sampled_from([0.0, 1.0, 2.0]), min_size=K * L, max_size=K * L)))
    cost = cost.reshape(K, 1, L)
    index = view.formats.index
    for layer in range(L):
        chosen = names[0] if first[layer] else names[1] if second[layer] else names[2]
        found = view.select((first, names[0]), (second, names[1]), otherwise=names[2])
        assert found[layer] == index(chosen)
        assert view.where(first, names[0], names[1])[layer] == index(names[0 if first[layer] else 1])
        costs = [cost[k, 0, layer] for k in range(K)]
        assert view.cheapest(cost)[0, layer] == costs.index(min(costs))
        allowed = [k for k in range(K) if costs[k] < 1]
        assert view.narrowest(cost < 1)[0, layer] == (allowed[0] if allowed else K - 1)


def test_choices_nest_and_are_uint8():
    view = ModelView([small()])
    narrow = view.narrowest(view.loss < 0.05)
    nested = view.where(view.is_type("LayerNorm"), "FP32", narrow)
    assert nested.tolist() == [[1, 1, 3, 1, 3]]
    uniform = view.select(otherwise="INT8")
    assert uniform.tolist() == [1] * 5
    for each in (nested, uniform, narrow, view.cheapest(view.bits), view.where(narrow > 0, "INT4", "FP16")):
        assert each.dtype == np.uint8


def test_tables_have_one_row_a_format():
    profile = small()
    view = ModelView([profile])
    assert view.bits[:, 0, 0].tolist() == [4, 8, 16, 32]
    np.testing.assert_allclose(np.exp(-view.loss[:, 0, :]), 1 - profile.sensitivity.T, rtol=1e-15)
    np.testing.assert_array_equal(view.sensitivity("FP16"), profile.sensitivity[:, 2])
    assert not np.signbit(view.loss).any()


@pytest.mark.parametrize("level", LEVELS)
def test_nothing_above_the_level_can_be_read(level):
    view = ModelView([small()], level)
    levels = {name: signal.level for name, signal in PER_LAYER_SIGNALS.items()} | {"loss": "curves"}
    for name, needed in levels.items():
        if LEVELS.index(needed) <= LEVELS.index(level):
            assert getattr(view, name).shape[-1] == 5
        else:
            with pytest.raises(SignalError, match=f"{name} needs the signals of level {needed}.*{level}"):
                getattr(view, name)
    assert view.is_type("Linear").sum() == 1
    assert view.bits.shape == (4, 1, 1)
    if level == "curves":
        assert view.sensitivity("INT4")[0] == 0.3
    else:
        with pytest.raises(SignalError, match=r'sensitivity\("INT4"\) needs'):
            view.sensitivity("INT4")


def test_levels_are_named():
    with pytest.raises(InputError, match=r"unknown level.*metadata, statistics, gradient, curves.*'all'"):
        ModelView([small()], "all")


@pytest.mark.parametrize("name", [*PER_LAYER, "bits", "loss", "offsets"])
def test_a_rule_cannot_write_into_what_it_reads(name):
    with pytest.raises(ValueError, match="read-only"):
        getattr(ModelView([small()]), name)[0] = 1
    with pytest.raises(ValueError, match="read-only"):
        ModelView([small()]).is_type("Linear")[0] = True
    with pytest.raises(ValueError, match="read-only"):
        ModelView([small()]).sensitivity("INT4")[0] = 1


def test_mistakes_are_named():
    view = ModelView([small()])
    for type_ in LAYER_TYPES:
        view.is_type(type_)
    with pytest.raises(RuleError, match=r"is_type: expected one of Embedding.*found 'Layernorm'"):
        view.is_type("Linear", "Layernorm")
    for call in (
        lambda: view.sensitivity("INT2"),
        lambda: view.where(view.is_type("Linear"), "INT2", "INT8"),
        lambda: view.select(otherwise="INT2"),
    ):
        with pytest.raises(RuleError, match="formats INT4, INT8, FP16, FP32, found 'INT2'"):
            call()
    with pytest.raises(AttributeError, match=r"no gradient; a rule may read .*gradient_sensitivity"):
        _ = view.gradient


@pytest.mark.parametrize("shape", [(4, 5), (5,), (4, 2, 3), (5, 1, 4), (3, 1, 5)])
def test_a_table_of_another_shape_is_refused(shape):
    # (4, 5) broadcasts with (K, 1, N) to nonsense: it must not pass for a table.
    view = ModelView([small()])
    with pytest.raises(RuleError, match=r"cheapest: cost: expected shape \(K, 1 or P, 1 or N\) with K = 4"):
        view.cheapest(np.ones(shape))
    with pytest.raises(RuleError, match="narrowest: allowed: expected shape"):
        view.narrowest(np.ones(shape, dtype=bool))


def test_models_of_different_formats_do_not_share_a_view():
    other = small(formats=get_formats(["INT2", "INT4", "FP16", "FP32"]))
    with pytest.raises(ValueError, match="same formats"):
        ModelView([small(), other])


def test_a_rule_cannot_change_what_others_see():
    view = ModelView(generate(1, seed=1))
    for name in ("weight_std", "formats", "anything"):
        with pytest.raises(RuleError, match=f"may not set model.{name}"):
            setattr(view, name, 0.0)
