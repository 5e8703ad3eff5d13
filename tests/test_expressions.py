"""The language of slots: text, trees and back again."""

from __future__ import annotations

import ast
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evolve.datasets import find_dataset
from evolve.errors import TemplateError
from evolve.expressions import (
    OPERATIONS,
    TABLES,
    Node,
    Type,
    is_format_name,
    parse,
    required_level,
    to_text,
    transform,
)
from evolve.number_ranges import name_numbers
from evolve.parameters import Parameter
from evolve.profiles import LAYER_TYPES
from evolve.signals import LEVELS, PER_LAYER_SIGNALS
from evolve.views import ModelView

FORMATS = ("INT2", "INT4", "INT8", "FP16", "FP32")
VIEW = ModelView(find_dataset("reference").test)
VALUES = st.floats(1e-9, 1e9)


@st.composite
def trees(draw: st.DrawFn, type_: Type, depth: int = 3) -> Node:
    """Any expression of a type, its numbers without names."""
    if type_ == "number":
        return Node("number", value=draw(VALUES))
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        match type_:
            case "mask":
                types = st.lists(st.sampled_from(LAYER_TYPES), min_size=1, max_size=3, unique=True)
                return Node("is_type", value=tuple(draw(types)))
            case "table":
                return Node("table", value=draw(st.sampled_from(TABLES)))
            case _:
                signal = st.sampled_from(sorted(PER_LAYER_SIGNALS)).map(
                    lambda name: Node("signal", value=name)
                )
                if draw(st.integers(0, 4)) == 0:
                    types = draw(st.lists(st.sampled_from(LAYER_TYPES), min_size=1, unique=True))
                    numbers = tuple(draw(trees("number")) for _ in range(1 + len(types)))
                    return Node("by_type", numbers, tuple(types))
                curve = st.sampled_from(FORMATS).map(lambda name: Node("sensitivity", value=name))
                return draw(signal | curve)
    operation = draw(st.sampled_from([each for each in OPERATIONS if each.result == type_]))
    return Node(operation.name, tuple(draw(trees(each, depth - 1)) for each in operation.arguments))


typed_trees = st.sampled_from(("mask", "score", "table")).flatmap(
    lambda type_: trees(type_).map(lambda tree: (type_, tree))
)


def named(tree: Node) -> tuple[Node, dict[str, float]]:
    (renamed,), parameters = name_numbers([tree], {})
    return renamed, {each.name: each.default for each in parameters}


@given(typed_trees)
@settings(max_examples=200)
def test_printing_and_reading_are_inverse(typed):
    type_, tree = typed
    assert tree.type == type_
    tree, values = named(tree)
    text = to_text(tree)
    assert parse(text, type_, values) == tree
    assert to_text(parse(text, type_, values)) == text


@given(typed_trees)
@settings(max_examples=200)
def test_an_expression_is_printed_as_python_prints_it(typed):
    text = to_text(named(typed[1])[0])
    assert text == ast.unparse(ast.parse(text, mode="eval")).replace("'", '"')


@given(typed_trees)
@settings(max_examples=200)
def test_an_expression_computes_what_its_type_says(typed):
    type_, tree = typed
    tree, values = named(tree)
    view = VIEW
    K, P, N = len(view.formats), 2, view.num_layers
    p = type("p", (), {name: np.full((P, 1), value) for name, value in values.items()})
    with np.errstate(all="ignore"):
        found = eval(to_text(tree), {"model": view, "p": p, "np": np})
    if type_ == "table":
        assert found.ndim == 3
        np.broadcast_to(found, (K, P, N))
    else:
        assert found.shape in ((N,), (1, N), (P, N))
        assert found.dtype == (bool if type_ == "mask" else float)


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda each: f"{each.name}-{'-'.join(each.arguments)}")
def test_every_operation_can_be_written(operation):
    leaf = {
        "mask": Node("is_type", value=("Linear",)),
        "score": Node("signal", value="weight_std"),
        "table": Node("table", value="bits"),
        "number": Node("number", value=0.5),
    }
    tree, values = named(Node(operation.name, tuple(leaf[each] for each in operation.arguments)))
    assert parse(to_text(tree), operation.result, values) == tree


@pytest.mark.parametrize(
    ("text", "type_"),
    [
        ('model.is_type("LayerNorm", "Classifier")', "mask"),
        ("model.relative_position < p.x", "mask"),
        ("(model.relative_position < p.x) | (model.relative_position > p.y)", "mask"),
        ('~(model.is_type("Conv") & (model.sensitivity("FP16") > p.x))', "mask"),
        ("model.gradient_sensitivity > model.mean(model.gradient_sensitivity)", "mask"),
        ("model.weight_std + p.x * (model.depth - model.num_params) / p.y", "score"),
        ("model.fraction(model.rank(model.weight_std) > p.x)", "score"),
        ("model.share_below(model.num_params, np.log(model.weight_std))", "score"),
        ("model.weight_std * model.by_type(p.x, Conv=p.y, Linear=p.x)", "score"),
        ("np.log(model.bits) + p.x * model.loss / model.param_fraction", "table"),
        ("p.x - model.bits", "table"),
    ],
)
def test_what_people_write_is_kept_as_they_wrote_it(text, type_):
    assert to_text(parse(text, type_, {"x": 0.25, "y": 0.75})) == text


def test_white_space_and_quotes_are_the_writers_own():
    free = "  ( model.weight_std<p.x )\t| model.is_type( 'Linear' ) "
    assert to_text(parse(free, "mask", {"x": 1})) == '(model.weight_std < p.x) | model.is_type("Linear")'


def test_a_tree_is_walked_from_the_root_left_to_right():
    tree = parse("model.weight_std + p.x < model.depth", "mask", {"x": 2})
    assert [each.operation for each in tree.walk()] == ["less", "add", "signal", "number", "signal"]
    assert tree.size == 5
    doubled = transform(tree, lambda node: replace(node, value=4.0) if node.operation == "number" else node)
    assert [each.value for each in doubled.walk()] == [None, None, "weight_std", 4.0, "depth"]


# What each number is named after, and the bounds that go with it.
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("model.edge_distance < p.x", Parameter("edge_distance", 0.3, 0.0, 0.5)),
        ('model.sensitivity("FP16") > p.x', Parameter("sensitivity_fp16", 0.3, 1e-5, 1.0, "log")),
        ("model.rank(model.depth) > p.x", Parameter("rank", 0.3, 0.0, 1.0)),
        ('model.fraction(model.is_type("Conv")) > p.x', Parameter("fraction", 0.3, 0.0, 1.0)),
        ("model.share_below(model.depth, model.depth) < p.x", Parameter("share_below", 0.3, 0.0, 1.0)),
        ("model.mean(model.weight_std) > p.x", Parameter("threshold", 0.3, 1e-6, 1e3, "log")),
        ("model.weight_std * p.x > model.depth", Parameter("weight", 0.3, 1e-4, 1e4, "log")),
    ],
)
def test_a_number_is_named_after_what_it_is_compared_with(text, expected):
    assert name_numbers([parse(text, "mask", {"x": 0.3})], {})[1] == [expected]


def test_numbers_by_type_are_named_after_their_types_and_bound_as_their_place_is():
    text = "np.exp(-(model.by_type(p.a, Conv=p.b, LayerNorm=p.c) * model.bits))"
    found = name_numbers([parse(text, "table", {"a": 0.3, "b": 0.4, "c": 20.0})], {})[1]
    bounds = (1e-2, 1e1, "log")
    assert found == [
        Parameter("rate", 0.3, *bounds),
        Parameter("rate_conv", 0.4, *bounds),
        Parameter("rate_layernorm", 10.0, *bounds),
    ]


def test_names_are_unique_and_in_reading_order():
    texts = ["(model.weight_std < p.b) | (model.weight_std > p.a)", "model.weight_std < p.c"]
    nodes = [parse(each, "mask", {"a": 0.1, "b": 0.2, "c": 0.3}) for each in texts]
    renamed, parameters = name_numbers(nodes, {"weight_std": Parameter("weight_std", 1, 0, 2)})
    assert [each.name for each in parameters] == ["weight_std_2", "weight_std_3", "weight_std_4"]
    assert [each.default for each in parameters] == [0.2, 0.1, 0.3]
    assert to_text(renamed[1]) == "model.weight_std < p.weight_std_4"


def test_equal_structures_get_equal_names_whatever_their_history():
    first = parse("model.depth < p.x", "mask", {"x": 30})
    second = parse("model.depth < p.what_it_was_before", "mask", {"what_it_was_before": 60})
    assert to_text(named(first)[0]) == to_text(named(second)[0]) == "model.depth < p.depth"


@given(typed_trees)
def test_numbers_stay_within_their_bounds(typed):
    renamed, parameters = name_numbers([typed[1]], {})
    inside = [node.value for root in renamed for node in root.walk() if node.operation == "number"]
    before = [node.value for node in typed[1].walk() if node.operation == "number"]
    for value, old, parameter in zip(inside, before, parameters, strict=True):
        assert value == parameter.default == min(parameter.high, max(parameter.low, old))


def test_two_parameters_of_one_name_stay_two():
    tree, values = named(parse("p.x * model.weight_std < p.x", "mask", {"x": 0.5}))
    assert to_text(tree) == "p.weight * model.weight_std < p.threshold"
    assert values == {"weight": 0.5, "threshold": 0.5}


@pytest.mark.parametrize(
    ("text", "level"),
    [
        ('model.is_type("Linear")', "metadata"),
        ("model.relative_position < p.x", "metadata"),
        ("model.weight_std < p.x", "statistics"),
        ("model.weight_std < model.gradient_sensitivity", "gradient"),
        ('(model.depth < p.x) & (model.sensitivity("INT4") < p.x)', "curves"),
    ],
)
def test_an_expression_costs_its_dearest_signal(text, level):
    assert LEVELS[required_level(parse(text, "mask", {"x": 1}))] == level


def test_tables_have_levels_too():
    assert LEVELS[required_level(parse("model.bits", "table", {}))] == "metadata"
    assert LEVELS[required_level(parse("model.bits * model.loss", "table", {}))] == "curves"


# text, the type asked for, and what the message must say besides the text itself
REFUSED = [
    ("model.depth <", "mask", "not a Python expression"),
    ("", "mask", "not a Python expression"),
    ("x = 1", "mask", "not a Python expression"),
    ("model.depth", "mask", "this expression is a score; expected a mask"),
    ("model.depth < p.x", "score", "this expression is a mask; expected a score"),
    ("p.x", "score", "this expression is a number; expected a score"),
    ("model.bits", "score", "this expression is a table; expected a score"),
    ("model.depth < p.y", "mask", "Add it under [parameters.y]"),
    ("model.depth < 3", "mask", "a bare constant"),
    ("model.height < p.x", "mask", "models have no signal height; expected one of relative_position"),
    ('model.is_type("Dense")', "mask", "unknown layer type; expected one of Embedding"),
    ("model.is_type()", "mask", "unknown layer type"),
    ("model.is_type(p.x)", "mask", "unknown layer type"),
    ("model.by_type(p.x, Dense=p.x)", "score", "unknown layer type; expected some of Embedding"),
    ("model.by_type(p.x)", "score", "unknown layer type"),
    ("model.by_type(p.x, Conv=model.depth)", "score", "by_type takes numbers"),
    ("p.x < model.depth", "mask", "less does not take a number and a score"),
    ("model.bits < p.x", "mask", "less does not take a table and a number"),
    ("model.depth & model.depth", "mask", "and does not take a score and a score"),
    ("~model.depth", "mask", "not does not take a score"),
    ('model.mean(model.is_type("Conv"))', "score", "mean does not take a mask"),
    ("model.share_below(model.depth)", "score", "share_below does not take a score"),
    ("model.mean()", "score", "mean does not take nothing"),
    ("np.sin(model.depth)", "score", "this is not in the language of slots"),
    ("model.depth <= p.x", "mask", "this is not in the language of slots"),
    ("p.x < model.depth < p.x", "mask", "this is not in the language of slots"),
    ("model.depth < p.x and model.depth > p.x", "mask", "this is not in the language of slots"),
    ("model.depth ** p.x", "score", "this is not in the language of slots"),
    ("+model.depth", "score", "this is not in the language of slots"),
    ("np.log(x=model.depth)", "score", "this is not in the language of slots"),
    ('__import__("os")', "mask", "this is not in the language of slots"),
    ("model.__class__", "score", "models have no signal __class__"),
    ("""model.sensitivity('FP16"')""", "score", "bad format name; expected letters, digits and underscores"),
    ('model.sensitivity("")', "score", "bad format name"),
    ("model.sensitivity(p.x)", "score", "this is not in the language of slots"),
]


@pytest.mark.parametrize(("text", "type_", "said"), REFUSED, ids=[each[0] for each in REFUSED])
def test_what_the_language_does_not_have_is_refused_with_the_text(text, type_, said):
    with pytest.raises(TemplateError) as caught:
        parse(text, type_, {"x": 0.5})
    assert said in str(caught.value)
    assert caught.value.found == text


@pytest.mark.parametrize("depth", [80, 800, 100_000])
def test_a_deep_expression_is_no_crash(depth):
    text = "~" * depth + 'model.is_type("Conv")'
    if depth < 100:
        assert parse(text, "mask", {}).size == depth + 1
    else:
        with pytest.raises(TemplateError, match=r"nested too deeply|not a Python"):
            parse(text, "mask", {})


def test_the_message_points_at_the_part_that_is_wrong():
    with pytest.raises(TemplateError) as caught:
        parse("(model.depth < p.x) | (model.weight_std < p.typo)", "mask", {"x": 1})
    assert caught.value.field == "p.typo"


@pytest.mark.parametrize(
    ("name", "good"),
    [("FP8_E4M3", True), ("INT4", True), ("", False), ("a b", False), ("_", False), ("é", False)],
)
def test_format_names(name, good):
    assert is_format_name(name) is good


def test_printed_text_is_python():
    tree, _ = named(parse("model.depth < p.x", "mask", {"x": 9}))
    assert ast.unparse(ast.parse(to_text(tree))) == to_text(tree)
