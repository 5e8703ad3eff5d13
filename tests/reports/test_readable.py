"""A rule is shown in another text than it is searched in, and allocates alike to the bit."""

from __future__ import annotations

import random

import numpy as np
import pytest

from evolve.candidates import Candidate
from evolve.datasets import find_dataset
from evolve.evaluation import Failure, allocate
from evolve.expressions import parse, to_text
from evolve.grammar import seeded, vocabulary
from evolve.plugin_files import general_templates, load_plugin
from evolve.plugins import load_catalogue
from evolve.python_source import compile_rule
from evolve.reports.cleaning import cleaned_expression
from evolve.reports.readable import WIDTH, readable, shown_rule
from evolve.templates import Template
from evolve.variation import mutate_structure, newcomer
from evolve.views import ModelView

TEMPLATES = general_templates()
FORMATS = ("INT4", "INT8", "FP16", "FP32")
NUMBERS = {name: value for value, name in enumerate("abcdefgh", 2)} | {"one": 1.0, "same": 2.0}


@pytest.fixture(scope="module")
def view() -> ModelView:
    """Models of several families, side by side."""
    return ModelView(find_dataset("suite").train[:9])


def choices(source: str, parameters, view: ModelView) -> np.ndarray | str:
    """What a rule allocates, or how it fails."""
    values = np.array([[value for _, value in parameters]])
    found = allocate(compile_rule(source), view, tuple(name for name, _ in parameters), values)
    return found.kind if isinstance(found, Failure) else found


def random_candidates(count: int) -> list[Candidate]:
    words = vocabulary(FORMATS, "curves")
    found = []
    with seeded() as seed:
        seed(11)
        for _ in range(count):
            candidate, _ = newcomer(random.choice([*TEMPLATES.values()]), TEMPLATES, words)
            for _ in range(random.randint(0, 25)):
                candidate, _ = mutate_structure(candidate, TEMPLATES[candidate.template], words)
            found.append(candidate)
    return found


def test_shown_rules_allocate_as_the_searched_ones_in_short_lines(view):
    rewritten, bodies = 0, []
    for candidate in random_candidates(250):
        template = TEMPLATES[candidate.template]
        searched, shown = template.source(candidate), shown_rule(candidate, template)
        one, other = (
            choices(searched, candidate.parameters, view),
            choices(shown.source, shown.parameters, view),
        )
        assert np.array_equal(one, other), f"{searched}\n{shown.source}\n{candidate.parameters}"
        assert max(map(len, shown.source.splitlines())) <= WIDTH, shown.source
        assert shown == shown_rule(candidate, template)
        assert {*shown.parameters} <= {*candidate.parameters}
        rewritten += shown.source != searched
        bodies.append(shown.source.count("\n") - 1)
    assert rewritten > 100
    # Some of these are longer than any rule that survives a search.
    assert np.percentile(bodies, 90) <= 15


def test_discovered_rules_fit_on_a_screen(view):
    for name, each in load_catalogue().heuristics.items():
        if each.role == "discovered":
            shown = shown_rule(each.candidate, each.template)
            assert shown.source.count("\n") - 1 <= 16, name
            one = choices(each.template.source(each.candidate), each.candidate.parameters, view)
            assert np.array_equal(one, choices(shown.source, shown.parameters, view)), name


GRADIENT = """{#
template = "weighted"

[slots]
weight = "model.param_fraction * np.where(model.param_fraction < p.a, p.b, p.c)"
loss = '''np.exp(-((np.where(model.is_type("Attention"), p.d, model.by_type(p.e, Embedding=p.f,
  Conv=p.g, Linear=p.h, Attention=p.i)) - model.weight_range * model.by_type(p.j, Embedding=p.k, Conv=p.l))
  * model.bits))'''

[parameters]
a = 0.1
b = 2
c = 3
d = 0.4
e = 0.5
f = 0.6
g = 0.7
h = 0.8
i = 0.9
j = 1.1
k = 1.2
l = 1.3
#}
"""
SHOWN = """def allocate(model, p):
    low_param_fraction = model.param_fraction < p.param_fraction
    param_fraction_factor = np.where(low_param_fraction, p.weight, p.weight_2)
    weight = model.param_fraction * param_fraction_factor
    rates = model.by_type(
        p.weight_4, Embedding=p.weight_embedding, Conv=p.weight_conv, Linear=p.weight_linear,
        Attention=p.weight_3,
    )
    weight_range_factors = model.by_type(
        p.weight_5, Embedding=p.weight_embedding_2, Conv=p.weight_conv_2,
    )
    loss = np.exp(-((rates - model.weight_range * weight_range_factors) * model.bits))
    return model.cheapest(weight * model.bits + p.price * loss)
"""


def test_a_long_rule_as_a_person_would_have_written_it(tmp_path):
    file = tmp_path / "rule.py.j2"
    file.write_text(GRADIENT)
    found = load_plugin(file)
    shown = shown_rule(found.candidate, found.template)
    assert shown.source == SHOWN
    # What the outer question answers is not asked again, and its number not shown.
    assert {name for name, _ in found.candidate.parameters} - {name for name, _ in shown.parameters} == {
        "weight_attention"
    }


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("--model.depth", "model.depth"),
        ("model.depth * p.one", "model.depth"),
        ("model.depth / p.one", "model.depth"),
        ("model.depth - -model.num_params", "model.depth + model.num_params"),
        ("-model.depth + model.num_params", "model.num_params - model.depth"),
        ("-model.depth * -model.num_params", "model.depth * model.num_params"),
        # Equal numbers of two names are one number.
        ("np.where(model.depth > p.a, model.depth * p.a, model.depth * p.same)", "model.depth * p.a"),
        # What is known of the type is not asked again …
        (
            'np.where(model.is_type("Conv"), np.where(~model.is_type("Linear"), model.depth, p.a), p.b)',
            'np.where(model.is_type("Conv"), model.depth, p.b)',
        ),
        (
            'np.where(model.is_type("Conv"), model.depth, model.by_type(p.a, Conv=p.b, Linear=p.c))',
            'np.where(model.is_type("Conv"), model.depth, np.where(model.is_type("Linear"), p.c, p.a))',
        ),
        # … but a model's layers are of every type.
        (
            'np.where(model.is_type("Conv"), model.total(np.where(model.is_type("Conv"), p.a, p.b)), p.c)',
            'np.where(model.is_type("Conv"), model.total(np.where(model.is_type("Conv"), p.a, p.b)), p.c)',
        ),
        # Numbers by type are one table.
        (
            'np.where(model.is_type("Conv"), p.a, np.where(model.is_type("Linear"), p.b, p.c))',
            "model.by_type(p.c, Conv=p.a, Linear=p.b)",
        ),
        (
            "model.by_type(p.c, Conv=p.a, Linear=p.same)",
            'np.where(model.is_type("Conv", "Linear"), p.a, p.c)',
        ),
    ],
)
def test_what_does_nothing_is_left_out(written, expected):
    node = parse(written, "score", NUMBERS)
    assert to_text(cleaned_expression(node)) == expected


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ('model.is_type("Conv") & (model.is_type("Conv", "Linear") & (model.depth > p.a))', None),
        (
            'model.is_type("Conv") | ~model.is_type("Linear")',
            'model.is_type("Conv") | ~model.is_type("Linear")',
        ),
        (
            'model.is_type("Conv") & (model.depth > model.by_type(p.a, Conv=p.b))',
            'model.is_type("Conv") & (model.depth > p.b)',
        ),
        (
            'model.is_type("Conv") & model.is_type("Linear")',
            'model.is_type("Conv") & model.is_type("Linear")',
        ),
    ],
)
def test_masks_keep_being_masks(written, expected):
    node = parse(written, "mask", NUMBERS)
    found = to_text(cleaned_expression(node))
    assert found == (expected or 'model.is_type("Conv") & (model.depth > p.a)')


def test_what_is_computed_twice_has_a_name():
    rank = 'model.share_below(model.num_params, model.sensitivity("FP16"))'
    source = (
        "def allocate(model, p):\n"
        f"    weight = np.where({rank} < p.a, model.depth, {rank}) + model.param_fraction\n"
        f'    return model.where({rank} > p.b, "FP16", "FP32")\n'
    )
    assert readable(source) == (
        "def allocate(model, p):\n"
        '    sensitivity_fp16 = model.sensitivity("FP16")\n'
        "    share_by_sensitivity_fp16 = model.share_below(model.num_params, sensitivity_fp16)\n"
        "    low_share_by_sensitivity_fp16 = share_by_sensitivity_fp16 < p.a\n"
        "    weight_term = np.where(low_share_by_sensitivity_fp16, model.depth, share_by_sensitivity_fp16)\n"
        "    weight = weight_term + model.param_fraction\n"
        '    return model.where(share_by_sensitivity_fp16 > p.b, "FP16", "FP32")\n'
    )


def test_short_rules_and_those_of_people_stay_as_they_are():
    short = "def allocate(model, p):\n    # why\n    return model.where(model.depth > p.a, 'FP16', 'INT8')\n"
    assert readable(short) == short
    long = (
        f"def allocate(model, p):\n    if model.num_layers:\n        x = {' + '.join(['model.depth'] * 12)}\n"
    )
    assert readable(long + "    return x\n") == long + "    return x\n"
    source = f"def allocate(model, p):\n    x = {' + '.join(['model.depth'] * 12)}\n    return x\n"
    template = Template("mine", source, kind="function")
    assert shown_rule(Candidate("mine"), template).source == source


def test_comments_of_a_template_stay_above_their_lines():
    terms = " + ".join(
        f"model.rank(model.{name})" for name in ("depth", "num_params", "weight_std", "weight_mean")
    )
    source = (
        f"def allocate(model, p):\n    # A sum.\n    x = {terms}\n    return model.cheapest(x * model.bits)\n"
    )
    lines = readable(source).splitlines()
    assert len(lines) > 4
    assert lines[lines.index("    # A sum.") + 1].startswith("    x = ")
