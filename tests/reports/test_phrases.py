"""The phrases for masks and quantities, each within the paragraph of a rule."""

from __future__ import annotations

import pytest

from evolve.reports.words import in_words
from evolve.signals import PER_LAYER_SIGNALS

PARAMETERS = {"edge": 0.075, "threshold": 0.001, "half": 0.5}


def words(result: str) -> str:
    return in_words(f"def allocate(model, p):\n    return {result}\n", PARAMETERS)


def mask_in_words(mask: str) -> str:
    """The phrase for a mask, without the rest of the paragraph."""
    text = words(f"model.where({mask}, 'FP32', 'FP16')")
    return text.removeprefix("Layers ").removesuffix(" go to FP32. All others go to FP16.").removesuffix(",")


def cost_in_words(cost: str) -> str:
    text = words(f"model.cheapest({cost})")
    start = "Each layer goes to the format of least cost, where the cost is "
    assert text.startswith(start)
    return text.removeprefix(start).removesuffix(".")


@pytest.mark.parametrize(
    ("mask", "phrase"),
    [
        ("~model.is_type('Conv', 'Linear', 'Attention')", "not of type Conv, Linear or Attention"),
        ("model.is_type('Conv') | model.is_type('Linear')", "of type Conv or Linear"),
        ("model.is_type(*('Conv', 'Linear'))", "of type Conv or Linear"),
        ("model.relative_position < p.edge", "within the first 7.5 % of the model"),
        ("model.relative_position > 1 - p.edge", "within the last 7.5 % of the model"),
        (
            "(model.relative_position < p.edge) | (model.relative_position > 1 - p.edge)",
            "within the first or last 7.5 % of the model",
        ),
        ("~(model.edge_distance < p.edge)", "outside the first and last 7.5 % of the model"),
        ("model.param_fraction > p.threshold", "whose share of the weights is above 0.1 %"),
        ("p.threshold < model.weight_std", "whose spread of the weights is above 0.001"),
        ("model.depth <= 99", "in models of at most 99 layers"),
        ("~(model.depth > 344)", "in models of at most 344 layers"),
        (
            "(model.is_type('Conv') | (model.weight_mean > 0)) & (model.depth < 9)",
            "either of type Conv or whose mean weight is above 0, and in models of fewer than 9 layers",
        ),
        (
            "~(model.is_type('Conv') | (model.weight_mean > 0))",
            "not of type Conv and whose mean weight is at most 0",
        ),
        (
            "(0 < model.weight_mean < 1) & (model.activation_range != 2)",
            "whose mean weight is above 0, whose mean weight is below 1 and whose range of the activations "
            "is not 2",
        ),
        (
            "model.rank(model.num_params) > 0.9",
            "among the 10 % of the model's layers with the highest number of weights",
        ),
        (
            "model.rank(model.bits_of(cheap)) < 0.25",
            "among the 25 % of the model's layers with the lowest value of `model.bits_of(cheap)`",
        ),
        (
            "model.share_below(model.num_params, model.sensitivity('INT4')) < p.half",
            "among the model's layers of lowest INT4 sensitivity that together make up less than 50 % of the "
            "weights",
        ),
        (
            "model.share_below(model.sensitivity('INT4'), model.weight_std) > p.half",
            "not among the model's layers of lowest spread of the weights that together make up at most 50 % "
            "of the model's total INT4 sensitivity",
        ),
        (
            "model.fraction(model.is_type('Conv')) > p.half",
            "in models where layers of type Conv are more than 50 % of all layers",
        ),
        (
            "model.mean(model.weight_std) > p.threshold",
            "in models whose mean spread of the weights is above 0.001",
        ),
        (
            "model.weight_std > model.quantile(model.weight_std, 0.9)",
            "whose spread of the weights is above the model's 90 % quantile of the spread of the weights",
        ),
        (
            "model.weight_std < model.quantile(model.weight_std, p.half)",
            "whose spread of the weights is below the model's median of the spread of the weights",
        ),
        (
            "np.log(model.num_params) + 1 > model.largest(model.weight_range * 2)",
            "for which (the logarithm of the number of weights) plus 1 is above the model's largest value of "
            "(the range of the weights times 2)",
        ),
        ("special(model)", "for which `special(model)` holds"),
        ("~special(model, p.half)", "for which `special(model, 0.5)` does not hold"),
    ],
)
def test_masks(mask, phrase):
    assert mask_in_words(mask) == phrase


@pytest.mark.parametrize(
    ("cost", "phrase"),
    [
        ("model.bits - (model.loss - 2)", "the number of bits per weight minus (the predicted loss minus 2)"),
        (
            "model.bits / (model.loss * 2)",
            "the number of bits per weight divided by (the predicted loss times 2)",
        ),
        (
            "model.bits / model.loss * 2",
            "(the number of bits per weight divided by the predicted loss) times 2",
        ),
        ("1 * model.loss", "the predicted loss"),
        ("np.sqrt(np.exp(model.loss))", "the square root of the exponential of the predicted loss"),
        ("np.exp(model.loss + 1)", "the exponential of (the predicted loss plus 1)"),
        ("-model.loss ** 2", "minus (the predicted loss to the power of 2)"),
        (
            "np.maximum(model.loss, model.bits + 1)",
            "the larger of the predicted loss and (the number of bits per weight plus 1)",
        ),
        (
            "model.loss * np.where(model.is_type('Conv'), p.half, 2)",
            "the predicted loss times (0.5 for layers of type Conv, 2 for others)",
        ),
        (
            "model.loss + p.half * (model.edge_distance < p.edge)",
            "the predicted loss plus (0.5 for layers within the first or last 7.5 % of the model, 0 for "
            "others)",
        ),
        ("model.loss * p.unknown", "the predicted loss times `p.unknown`"),
        ("model.loss / 2e-7 + 1e20", "the predicted loss divided by 2e-07 plus 1e+20"),
        ("model.loss[0] + 1", "`model.loss[0]` plus 1"),
    ],
)
def test_costs(cost, phrase):
    assert cost_in_words(cost) == phrase


def test_every_signal_has_its_meaning():
    for name, signal in PER_LAYER_SIGNALS.items():
        assert signal.meaning in mask_in_words(f"model.{name} + 0.5 > 1")
