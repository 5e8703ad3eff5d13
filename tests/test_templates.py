"""Code templates: what is rendered, and text to trees and back."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_expressions import FORMATS, trees

from evolve.candidates import Candidate
from evolve.errors import TemplateError
from evolve.expressions import parse
from evolve.parameters import Parameter, linear
from evolve.plugin_files import general_templates
from evolve.python_source import compile_rule
from evolve.signals import LEVELS
from evolve.simplification import simplify
from evolve.templates import Genome, Slot, Template, check_slot_type, expressions_of, formats_of, mask_name

LADDER = general_templates()["ladder"]
CHEAPEST = general_templates()["cheapest"]
NARROWEST = general_templates()["narrowest"]
CHAMPION = Candidate(
    "ladder",
    (
        (
            "clauses",
            (
                ('model.is_type("LayerNorm", "Classifier")', "FP32"),
                (
                    "(model.edge_distance < p.edge_distance) | (model.depth < p.depth)",
                    "FP32",
                ),
                ('model.sensitivity("FP16") > p.sensitivity_fp16', "FP32"),
                ('~model.is_type("Conv")', "FP16"),
            ),
        ),
        ("otherwise", "INT8"),
    ),
    (("edge_distance", 0.075), ("depth", 30.0), ("sensitivity_fp16", 0.001)),
)


def ladder(*clauses: tuple[str, str], otherwise: str = "FP16", **values: float) -> Candidate:
    return Candidate("ladder", (("clauses", clauses), ("otherwise", otherwise)), tuple(values.items()))


def test_a_ladder_in_full():
    expected = """\
def allocate(model, p):
    layernorm_or_classifier = model.is_type("LayerNorm", "Classifier")
    either = (model.edge_distance < p.edge_distance) | (model.depth < p.depth)
    high_sensitivity_fp16 = model.sensitivity("FP16") > p.sensitivity_fp16
    not_conv = ~model.is_type("Conv")
    return model.select(
        (layernorm_or_classifier, "FP32"),
        (either, "FP32"),
        (high_sensitivity_fp16, "FP32"),
        (not_conv, "FP16"),
        otherwise="INT8",
    )
"""
    assert LADDER.source(CHAMPION) == expected


def test_a_ladder_without_clauses_in_full():
    expected = """\
def allocate(model, p):
    return model.select(otherwise="INT4")
"""
    assert LADDER.source(ladder(otherwise="INT4")) == expected


def test_the_other_general_templates_in_full():
    cost = "np.log(model.bits) + p.weight * model.loss"
    assert (
        CHEAPEST.source(Candidate("cheapest", (("cost", cost),), (("weight", 2.0),)))
        == """\
def allocate(model, p):
    cost = np.log(model.bits) + p.weight * model.loss
    return model.cheapest(cost)
"""
    )
    assert (
        NARROWEST.source(Candidate("narrowest", (("loss", "model.loss"),), (("limit", 0.02),)))
        == """\
def allocate(model, p):
    loss = model.loss
    return model.narrowest(loss <= -np.log1p(-p.limit))
"""
    )


def test_reading_and_writing_a_canonical_candidate_changes_nothing():
    assert LADDER.write(LADDER.read(CHAMPION)) == CHAMPION


@st.composite
def genomes(draw: st.DrawFn) -> tuple[Template, Genome]:
    """Any content of the general templates."""
    template = draw(st.sampled_from([LADDER, CHEAPEST, NARROWEST]))
    content = {
        "clauses": st.lists(st.tuples(trees("mask"), st.sampled_from(FORMATS)), max_size=4).map(tuple),
        "format": st.sampled_from(FORMATS),
        "table": trees("table"),
    }
    slots = tuple((slot.name, draw(content[slot.type])) for slot in template.slots)
    own = tuple(each.with_default(draw(st.floats(each.low, each.high))) for each in template.parameters)
    return template, Genome(template.name, slots, own)


@given(genomes())
@settings(max_examples=100)
def test_what_is_written_reads_as_itself(made):
    template, genome = made
    candidate = template.write(genome)
    again = template.read(candidate)
    assert template.write(again) == candidate
    assert again.parameters == genome.parameters
    for (_, before), (_, after) in zip(genome.slots, again.slots, strict=True):
        assert list(formats_of(after)) == list(formats_of(before))
        sizes = [
            (root.size, first.size)
            for root, first in zip(expressions_of(after), expressions_of(before), strict=True)
        ]
        assert all(size <= first for size, first in sizes)
        assert all(simplify(root) == root for root in expressions_of(after))
    assert (
        tuple((each.name, each.default) for each in template.parameters_of(candidate)) == candidate.parameters
    )
    compile_rule(template.source(candidate))


def test_names_do_not_depend_on_history():
    first = ladder(("model.depth < p.a", "FP32"), ("model.depth > p.b", "INT8"), a=20, b=50)
    second = ladder(
        ("model.depth < p.depth_2", "FP32"), ("model.depth > p.depth", "INT8"), depth=50, depth_2=20
    )
    canonical = [LADDER.write(LADDER.read(each)) for each in (first, second)]
    assert canonical[0] == canonical[1]
    assert canonical[0].id == canonical[1].id
    assert canonical[0].parameters == (("depth", 20.0), ("depth_2", 50.0))


def test_candidates_that_differ_in_numbers_share_their_source():
    other = replace(CHAMPION, parameters=tuple((name, 0.5) for name, _ in CHAMPION.parameters))
    assert other.id != CHAMPION.id
    assert LADDER.source(other) == LADDER.source(CHAMPION)


def test_clauses_are_named_after_what_they_say_each_name_once():
    def name(text: str) -> str:
        return mask_name(parse(text, "mask", {"x": 0.1}))

    assert name('model.is_type("Conv")') == "conv"
    assert name('model.is_type("Conv", "Linear")') == "conv_or_linear"
    assert name('model.is_type("Conv", "Linear", "Attention")') == "chosen_types"
    assert name("model.weight_std < p.x") == "low_weight_std"
    assert name('model.sensitivity("INT8") > p.x') == "high_sensitivity_int8"
    assert name("model.rank(model.depth) > p.x") == "high_rank"
    assert name('~(model.is_type("Conv") & model.is_type("Linear"))') == "not_both"

    # The second X would be called what the first format of that name already is.
    clauses = [(f'model.sensitivity("{each}") > p.x', "FP32") for each in ("X_2", "X", "X")]
    source = LADDER.source(ladder(*clauses, x=0.1))
    names = [line.split(" = ")[0].strip() for line in source.splitlines() if " = " in line]
    assert names == ["high_sensitivity_x_2", "high_sensitivity_x", "high_sensitivity_x_3"]


def test_a_templates_own_parameters_are_kept_apart_from_those_in_slots():
    body = (
        "def allocate(model, p):\n"
        "    return model.where({{ mask }} | (model.depth > p.depth), 'FP32', 'FP16')\n"
    )
    own = linear("depth", 10.0, 0.0, 99.0)
    template = Template("own", body, (Slot("mask", "mask"),), (own,))
    candidate = Candidate("own", (("mask", "model.depth < p.depth"),), (("depth", 20.0),))
    written = template.write(template.read(candidate))
    assert written.slots == (("mask", "model.depth < p.depth_2"),)
    assert written.parameters == (("depth", 20.0), ("depth_2", 20.0))
    assert template.parameters_of(written) == (
        own.with_default(20.0),
        Parameter("depth_2", 20.0, 5.0, 1000.0, "log"),
    )
    assert "(model.depth < p.depth_2) | (model.depth > p.depth)" in template.source(written)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("x = {{ mask }}", "x = model.depth < p.depth"),
        ("return {{ mask }}", "return model.depth < p.depth"),
        ("return f({{ mask }}, 'FP32')", "return f(model.depth < p.depth, 'FP32')"),
        ("return f(1, {{ mask }})", "return f(1, model.depth < p.depth)"),
        ("x = {{ mask }} | y", "x = (model.depth < p.depth) | y"),
        ("x = y & {{ mask }}", "x = y & (model.depth < p.depth)"),
        ("x = y == {{ mask }}", "x = y == (model.depth < p.depth)"),
        ("x = ~{{ mask }}", "x = ~(model.depth < p.depth)"),
        ("x = ({{ mask }} | y)", "x = ((model.depth < p.depth) | y)"),
        ("x = {{ mask }} & {{ mask }}", "x = (model.depth < p.depth) & (model.depth < p.depth)"),
    ],
)
def test_the_surroundings_of_a_slot_do_not_take_it_apart(line, expected):
    template = Template("own", f"def allocate(model, p):\n    {line}", (Slot("mask", "mask"),))
    candidate = Candidate("own", (("mask", "model.depth < p.depth"),), (("depth", 20.0),))
    assert template.source(candidate) == f"def allocate(model, p):\n    {expected}\n"


def test_a_slot_that_is_one_call_needs_no_parentheses():
    template = Template("own", "def allocate(model, p):\n    return ~{{ mask }}", (Slot("mask", "mask"),))
    candidate = Candidate("own", (("mask", 'model.is_type("Conv")'),))
    assert template.source(candidate).endswith('return ~model.is_type("Conv")\n')


@pytest.mark.parametrize(
    ("candidate", "level"),
    [
        (ladder(), "metadata"),
        (ladder(("model.weight_std < p.x", "FP32"), x=0.1), "statistics"),
        (CHAMPION, "curves"),
    ],
)
def test_a_candidate_costs_its_dearest_slot(candidate, level):
    assert LEVELS[LADDER.level(candidate)] == level


@pytest.mark.parametrize(
    ("candidate", "said"),
    [
        (
            Candidate("ladder", (("clauses", ()),)),
            "slots do not fit template ladder; expected clauses, otherwise",
        ),
        (replace(ladder(), slots=(*ladder().slots, ("more", "FP16"))), "found 'clauses, otherwise, more'"),
        (Candidate("ladder", (("clauses", "FP16"), ("otherwise", "FP16"))), "slots.clauses: bad slot"),
        (
            Candidate("ladder", (("clauses", ()), ("otherwise", ()))),
            "slots.otherwise: bad slot; expected the text",
        ),
        (ladder(otherwise='FP16"); import os; ("'), "slots.otherwise: bad slot; expected a format name"),
        (ladder(('model.is_type("Conv")', "FP 16")), "slots.clauses: bad slot; expected format names"),
        (ladder(("model.depth < p.x", "FP16")), "p.x: parameter x has no value"),
        (ladder(("model.depth", "FP16")), "this expression is a score; expected a mask"),
    ],
)
def test_slots_hold_what_their_types_allow(candidate, said):
    with pytest.raises(TemplateError) as caught:
        LADDER.read(candidate)
    assert said in str(caught.value)


def test_slot_types_are_known():
    assert check_slot_type("mask") == "mask"
    with pytest.raises(
        TemplateError, match="expected one of mask, score, table, format, clauses, found 'masc'"
    ):
        check_slot_type("masc")


@pytest.mark.parametrize(
    ("body", "line", "said"),
    [
        ("def allocate(model, p):\n    return {{ nothing }}\n", 2, "'nothing' is undefined"),
        ("\n{% if %}\n{% endif %}\n", 2, "does not render"),
        ("def allocate(model, p):\n\n    return {{ 1 / 0 }}\n", 3, "ZeroDivisionError"),
    ],
)
def test_a_body_that_does_not_render_is_named_by_its_line(body, line, said):
    with pytest.raises(TemplateError) as caught:
        Template("broken", body, file="broken.py.j2").source(Candidate("broken"))
    assert (caught.value.file, caught.value.place) == ("broken.py.j2", f"line {line}")
    assert said in str(caught.value)
