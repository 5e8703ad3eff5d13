"""Simplified expressions compute what the originals did, and say it shorter."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evolve.expressions import Node, parse, to_text
from evolve.grammar import seeded, vocabulary
from evolve.number_ranges import name_numbers
from evolve.simplification import simplify
from evolve.synthetic import generate
from evolve.views import ModelView

PROFILES = generate(3, seed=5)
VIEW = ModelView(PROFILES)
WORDS = vocabulary(PROFILES[0].format_names, "curves")


def value(node: Node) -> np.ndarray:
    (named,), parameters = name_numbers([node], {})
    numbers = {each.name: each.default for each in parameters}
    with np.errstate(all="ignore"):
        return eval(to_text(named), {"np": np, "model": VIEW, "p": type("P", (), numbers)})


@pytest.mark.parametrize(
    ("text", "simple"),
    [
        ('~~model.is_type("Conv")', 'model.is_type("Conv")'),
        ('model.is_type("Conv") | model.is_type("Linear")', 'model.is_type("Conv", "Linear")'),
        ('model.is_type("Conv", "Linear") & model.is_type("Linear")', 'model.is_type("Linear")'),
        (
            '~model.is_type("Embedding", "Conv", "Linear", "Attention", "LayerNorm")',
            'model.is_type("Classifier")',
        ),
        ("(model.depth > p.a) & (model.depth > p.a)", "model.depth > p.depth"),
        ('model.is_type("Conv") | model.is_type("Conv") & (model.depth > p.a)', 'model.is_type("Conv")'),
        ("model.rank(np.log(model.num_params)) > p.a", "model.rank(model.num_params) > p.rank"),
        ("np.log(np.exp(model.depth)) > p.a", "model.depth > p.depth"),
        ("model.mean(model.total(model.depth)) > p.a", "model.total(model.depth) > p.threshold"),
        ("model.depth * p.a * p.b > p.a", "model.depth * p.weight > p.threshold"),
        ("p.a * (p.b * model.depth) > p.a", "model.depth * p.weight > p.threshold"),
        ("model.depth / p.a / p.b > p.a", "model.depth / p.weight > p.threshold"),
    ],
)
def test_simplifies(text: str, simple: str) -> None:
    node = simplify(parse(text, "mask", {"a": 0.5, "b": 0.25}))
    (named,), _ = name_numbers([node], {})
    assert to_text(named) == simple


@given(st.integers(0, 10**9), st.sampled_from(["mask", "score", "table"]))
def test_keeps_the_value_and_never_grows(seed: int, kind: str) -> None:
    with seeded() as reseed:
        reseed(seed)
        node = WORDS.random_expression(kind, random.randint(1, 4))
    simple = simplify(node)
    assert simple.size <= node.size
    assert simple.type == node.type
    assert simplify(simple) == simple
    before, after = np.broadcast_arrays(value(node), value(simple))
    if kind == "mask":
        # A threshold can lie within the rounding that folding constants moves.
        assert (before != after).mean() < 0.01
    else:
        np.testing.assert_allclose(before, after, rtol=1e-9, atol=1e-12)
