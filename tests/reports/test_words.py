"""A rule in words: exact paragraphs for what rules say, and code in backticks for the rest."""

from __future__ import annotations

import random

import pytest

from evolve.grammar import seeded, vocabulary
from evolve.plugins import load_catalogue
from evolve.reports.words import in_words
from evolve.variation import mutate_structure, newcomer

PARAMETERS = {"edge": 0.075, "threshold": 0.001, "half": 0.5, "tenth": 0.1, "many": 1234567.0, "price": 100.0}


def rule(*lines: str) -> str:
    return "def allocate(model, p):\n" + "".join(f"    {line}\n" for line in lines)


def words(*lines: str) -> str:
    return in_words(rule(*lines), PARAMETERS)


def test_decision_list():
    assert words(
        "norm = model.is_type('LayerNorm')",
        "sensitive = model.sensitivity('FP16') > p.threshold",
        "return model.select((norm, 'FP32'), (sensitive, 'FP32'), otherwise='FP16')",
    ) == (
        "Layers of type LayerNorm go to FP32. Of the rest, those whose FP16 sensitivity is above 0.001 go to "
        "FP32. All others go to FP16."
    )


def test_one_mask_of_many():
    assert words(
        "protected = model.is_type('LayerNorm', 'Classifier') | (model.edge_distance < p.edge)",
        "sensitive = model.sensitivity('FP16') > p.threshold",
        "return model.where(protected | sensitive, 'FP32', 'FP16')",
    ) == (
        "Layers of type LayerNorm or Classifier, or within the first or last 7.5 % of the model, or whose "
        "FP16 sensitivity is above 0.001, go to FP32. All others go to FP16."
    )


def test_uniform():
    assert words("return model.select(otherwise='FP16')") == "All layers go to FP16."


def test_clauses_that_change_nothing_are_left_out():
    assert words(
        "big = model.num_params > p.many",
        "return model.select((big, 'INT4'), (model.is_type('Conv'), 'INT8'), otherwise='INT8')",
    ) == ("Layers whose number of weights is above 1,235,000 go to INT4. All others go to INT8.")


def test_choices_within_choices():
    assert words(
        "base = model.where(model.gradient_sensitivity > p.half, 'FP16', 'INT8')",
        "inner = model.where(model.is_type('Conv'), 'INT4', base)",
        "return model.where(mask=model.depth > 50, chosen=inner, otherwise='FP32')",
    ) == (
        "Layers in models of more than 50 layers and of type Conv go to INT4. Of the rest, those in models "
        "of more than 50 layers and whose gradient sensitivity is above 0.5 go to FP16. Of the rest, those "
        "in models of more than 50 layers go to INT8. All others go to FP32."
    )


def test_cheapest():
    assert words("cost = model.bits + p.price * model.loss", "return model.cheapest(cost)") == (
        "Each layer goes to the format of least cost, where the cost is the number of bits per weight plus "
        "100 times the predicted loss."
    )


def test_narrowest():
    assert words("return model.narrowest(model.loss <= -np.log1p(-p.tenth / 5))") == (
        "Each layer goes to the narrowest format that alone costs at most 2 % of the accuracy, or the widest "
        "where there is none."
    )
    assert words("return model.narrowest(model.bits >= p.price * model.edge_distance)") == (
        "Each layer goes to the narrowest format whose number of bits per weight is at least 100 times the "
        "distance from the nearer end, or the widest where there is none."
    )


def test_budget():
    assert words(
        "affordable = model.running_total(model.sensitivity('INT8'), model.rank(model.num_params)) < p.tenth",
        "return model.where(affordable, 'INT8', 'FP16')",
    ) == (
        "Layers among the model's layers of lowest rank by number of weights whose INT8 sensitivity adds up "
        "to less than 0.1 go to INT8. All others go to FP16."
    )


def test_two_passes():
    assert words(
        "first = model.cheapest(model.bits + p.price * model.loss)",
        "lost = model.total(model.pick(model.loss, first))",
        "spent = model.total(model.param_fraction * model.bits_of(first))",
        "return model.cheapest(model.bits + lost / spent * model.loss)",
    ) == (
        "In a first pass, each layer goes to the format of least cost, where the cost is the number of bits "
        "per weight plus 100 times the predicted loss. In the end, each layer goes to the format of least "
        "cost, where the cost is the number of bits per weight plus (the model's total predicted loss in the "
        "first pass divided by the model's total value of (the share of the weights times the number of bits "
        "per weight in the first pass)) times the predicted loss."
    )


def test_constants_of_the_module_are_put_in_place():
    source = "EDGE: float = 0.1\nTYPES = ('Conv', 'Linear')\nA, B = 1, 2\n" + rule(
        "kept = model.is_type(*TYPES)",
        "kept |= model.edge_distance < EDGE",
        "return model.where(kept, 'FP16', 'INT8')",
    )
    assert in_words(source, {}) == (
        "Layers of type Conv or Linear, or within the first or last 10 % of the model, go to FP16. "
        "All others go to INT8."
    )


def test_model_and_parameters_may_have_other_names():
    source = "def allocate(m, q):\n    return m.where(m.depth > q.x, 'FP16', 'INT8')\n"
    assert in_words(source, {"x": 5.0}) == (
        "Layers in models of more than 5 layers go to FP16. All others go to INT8."
    )


def test_program_is_summarised():
    assert words(
        "bits = model.bits[:, 0, 0]",
        "for layer in range(model.num_layers):",
        "    if model.num_params[layer] > 5 and model.is_type('Conv')[layer]:",
        "        bits = model.sensitivity('INT8')",
        "return model.where(bits > 1, 'FP16', 'INT8')",
    ) == (
        "The rule is a program of 5 statements. It reads the number of weights, the number of bits per "
        "weight, the sensitivity to formats and whether a layer is of type Conv. It names the "
        'formats INT8 and FP16. It returns `model.where(bits > 1, "FP16", "INT8")`.'
    )


def test_rule_that_explodes_when_put_together_is_summarised():
    lines = ["x0 = model.num_params"] + [f"x{n + 1} = x{n} + x{n}" for n in range(60)]
    text = words(*lines, "return model.where(x60 > 1, 'FP16', 'INT8')")
    assert text.startswith("The rule is a program of 62 statements. It reads the number of weights.")


@pytest.mark.parametrize(
    "source",
    [
        "",
        "def allocate(:",
        "def other(model, p): pass",
        "def allocate(): return 1",
        "def allocate(model, p): return",
        "def allocate(model, p): return model.where(1)",
        "def allocate(model, p): return model.select(*clauses(), otherwise='FP16')",
        "def allocate(model, p): return model.where(model.is_type(), 'FP16', 'INT8')",
        "def allocate(model, p): return model.where(1 / 0 > 10.0 ** 1000, 'FP16', 'INT8')",
        "def allocate(model, p): return lambda: (yield)",
        "def allocate(model, p): return " + "-" * 5000 + "1",
        "def allocate(model, p): return " + "(" * 500 + "1" + ")" * 500,
        "def allocate(model, p): return 'FP16' if model.depth.max() > 3 else 'INT8'",
        "\x00",
    ],
)
def test_never_raises(source):
    text = in_words(source, {"x": float("nan")})
    assert text.endswith(".")
    assert "\n" not in text


def test_what_the_search_can_make_needs_no_code():
    catalogue = load_catalogue()
    formats = vocabulary(("INT4", "INT8", "FP16", "FP32"), "curves")
    fillable = [each for each in catalogue.templates.values() if each.slots]
    with seeded() as seed:
        seed(11)
        for _ in range(300):
            candidate, _ = newcomer(random.choice(fillable), catalogue.templates, formats)
            for _ in range(random.randint(0, 4)):
                candidate, _ = mutate_structure(candidate, catalogue.templates[candidate.template], formats)
            source = catalogue.templates[candidate.template].source(candidate)
            text = in_words(source, dict(candidate.parameters))
            assert "`" not in text, source
            assert not text.startswith("The rule"), source
