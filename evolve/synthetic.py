"""Synthetic models: architecture families turned into profiles by seeded draws.

A family plans its layers (type, number of weights, early or late in the model); the
draws are the same for all of them and are those of the published problem. Shapes are
written with L, the number of layers, and K, the number of formats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.random import Generator, SeedSequence, default_rng

from evolve.architectures import PLANS, PUBLISHED_FAMILIES, PlannedLayer, plan_cnn, plan_transformer
from evolve.errors import ProfileError
from evolve.formats import PrecisionFormat, get_formats
from evolve.profiles import LAYER_TYPES, FloatArray, ModelProfile

Formats = Sequence[PrecisionFormat]
PUBLISHED_FORMATS = get_formats(("INT2", "INT4", "INT8", "FP16", "FP32"))
_PUBLISHED_BITS = np.array([2.0, 4.0, 8.0, 16.0])


class LayerKind(NamedTuple):
    """What the draws of one layer type are made from; the pairs bound uniform draws.

    Attributes:
        base: Sensitivity in INT2, INT4, INT8 and FP16 before the gradient scales it;
            in FP32, and with as many bits as that, it is 0.
        gradient: Gradient sensitivity away from the ends of the model.
        mean: Mean of the weights.
        std: Standard deviation of the weights.
        extent: Extent of the weights.
        activation: Extent of the activations.
    """

    base: tuple[float, float, float, float]
    gradient: tuple[float, float]
    mean: float = 0.0
    std: tuple[float, float] = (0.02, 0.03)
    extent: tuple[float, float] = (0.10, 0.15)
    activation: tuple[float, float] = (2.0, 5.0)


KINDS: Mapping[str, LayerKind] = {
    "Embedding": LayerKind((0.40, 0.15, 0.03, 0.001), (0.60, 0.80), 0.0, (0.02, 0.02), (0.10, 0.10)),
    "Conv": LayerKind((0.18, 0.05, 0.008, 0.0001), (0.20, 0.45)),
    "Linear": LayerKind((0.20, 0.06, 0.01, 0.0002), (0.20, 0.50)),
    "Attention": LayerKind((0.25, 0.08, 0.015, 0.0005), (0.40, 0.70)),
    "LayerNorm": LayerKind(
        (0.50, 0.20, 0.05, 0.001), (0.80, 0.95), 1.0, (0.01, 0.01), (0.05, 0.05), (1.0, 1.5)
    ),
    "Classifier": LayerKind(
        (0.35, 0.12, 0.02, 0.001), (0.70, 0.90), 0.0, (0.01, 0.01), (0.05, 0.05), (10.0, 15.0)
    ),
}
# The gradient is larger near the ends of a model, and never quite 1.
EARLY_FACTOR, LATE_FACTOR, MOST_GRADIENT = 1.2, 1.15, 0.99
# A value of a curve is its base times 0.5 + 0.5 · gradient, give or take a tenth of the base.
CURVE_NOISE, MOST_SENSITIVITY = 0.1, 0.99


def draw_profile(
    generator: Generator, plan: Sequence[PlannedLayer], name: str, formats: Formats = PUBLISHED_FORMATS
) -> ModelProfile:
    """Draw the signals and curves of a planned model.

    Args:
        generator: The only source of randomness.
        plan: The model's L layers in order.
        name: What to call the profile.
        formats: K formats by non-decreasing bits; see ``base_curves`` for unpublished ones.

    Raises:
        ProfileError: The plan has no layers or a size that is not positive.
    """
    kinds = [KINDS[layer.layer_type] for layer in plan]
    factor = [EARLY_FACTOR if each.early else LATE_FACTOR if each.late else 1.0 for each in plan]
    gradient = np.minimum(_uniform(generator, [kind.gradient for kind in kinds]) * factor, MOST_GRADIENT)
    std = _uniform(generator, [kind.std for kind in kinds])
    extent = _uniform(generator, [kind.extent for kind in kinds])
    activation = _uniform(generator, [kind.activation for kind in kinds])
    base = base_curves(formats)[[LAYER_TYPES.index(layer.layer_type) for layer in plan]]
    # Drawn last, so that the other signals do not depend on the formats.
    noise = generator.uniform(-CURVE_NOISE, CURVE_NOISE, base.shape)
    curves = np.clip(base * (0.5 + 0.5 * gradient[:, None] + noise), 0.0, MOST_SENSITIVITY)
    num_params = np.array([layer.num_params for layer in plan], dtype=np.int64)
    return ModelProfile(
        name=name,
        formats=tuple(formats),
        layer_type=tuple(layer.layer_type for layer in plan),
        layer_index=np.arange(len(plan)),
        num_params=num_params,
        weight_mean=np.array([kind.mean for kind in kinds]),
        weight_std=std,
        weight_range=extent,
        activation_range=activation,
        gradient_sensitivity=gradient,
        sensitivity=np.minimum.accumulate(curves, axis=1),
        description=f"{len(plan)} layers, {num_params.sum():,} weights",
        source="synthetic",
    )


def base_curves(formats: Formats) -> FloatArray:
    """Return the base sensitivity of each layer type in each format, (6, K).

    Between the published numbers of bits the logarithm of the base is linear in the
    bits, and outside it goes on with the nearest slope; from 32 bits on the base is 0.
    """
    bits = np.array([each.bits for each in formats], dtype=np.float64)
    bases = np.array([KINDS[name].base for name in LAYER_TYPES])
    slopes = np.diff(np.log(bases), axis=1) / np.diff(_PUBLISHED_BITS)
    slopes = np.hstack([slopes, slopes[:, -1:]])
    # Counted from the published format below, so that the published bases come out exactly.
    below = np.maximum(np.searchsorted(_PUBLISHED_BITS, bits, side="right") - 1, 0)
    curves = bases[:, below] * np.exp(slopes[:, below] * (bits - _PUBLISHED_BITS[below]))
    return np.where(bits >= 32, 0.0, curves)


def _uniform(generator: Generator, bounds: Sequence[tuple[float, float]]) -> FloatArray:
    low, high = np.array(bounds, dtype=np.float64).reshape(-1, 2).T
    return generator.uniform(low, high)


def transformer(
    generator: Generator,
    blocks: int = 32,
    *,
    name: str = "transformer",
    hidden: int = 4096,
    feed_forward: int = 11008,
    vocabulary: int = 32000,
    formats: Formats = PUBLISHED_FORMATS,
) -> ModelProfile:
    """Draw a transformer like the published ones of 32 and 24 blocks: L = 4 · blocks + 3.

    Raises:
        ProfileError: A size is not positive.
    """
    plan = plan_transformer(blocks, hidden, feed_forward, vocabulary)
    return draw_profile(generator, plan, name, formats)


def cnn(
    generator: Generator,
    channels: Sequence[int] = (64, 128, 256, 512),
    *,
    blocks: int = 3,
    classes: int = 1000,
    name: str = "cnn",
    formats: Formats = PUBLISHED_FORMATS,
) -> ModelProfile:
    """Draw a network like the published CNN: L = 2 · blocks · stages + 3.

    Raises:
        ProfileError: A size is not positive.
    """
    return draw_profile(generator, plan_cnn(channels, blocks, classes), name, formats)


def draw_model(
    family: str, generator: Generator, name: str, formats: Formats = PUBLISHED_FORMATS
) -> ModelProfile:
    """Draw a model of a family, its sizes too.

    Raises:
        ProfileError: There is no such family.
    """
    if family not in PLANS:
        raise ProfileError(
            "unknown family", field="family", expected=f"one of {', '.join(PLANS)}", found=family
        )
    return draw_profile(generator, PLANS[family](generator), name, formats)


#: The families of the suites. Those of the published widths are drawn only when named.
FAMILIES: Mapping[str, Callable[[Generator, str], ModelProfile]] = {
    family: partial(draw_model, family) for family in PLANS if family not in PUBLISHED_FAMILIES
}


def generate(
    count: int,
    seed: int,
    families: Sequence[str] | None = None,
    formats: Formats = PUBLISHED_FORMATS,
    start: int = 0,
) -> tuple[ModelProfile, ...]:
    """Generate models of the families in turn; model i depends on the seed and i, never on count.

    Args:
        count: How many models.
        seed: A whole number, at least 0.
        families: Names in ``FAMILIES`` (all of them by default), or ``transformer`` and ``cnn``.
        formats: K formats by non-decreasing bits.
        start: The first i.

    Raises:
        ProfileError: A family is unknown, or there is none.
    """
    chosen = tuple(FAMILIES) if families is None else tuple(families)
    if not chosen:
        raise ProfileError("no family", field="families", expected=f"some of {', '.join(FAMILIES)}")
    models = []
    for i in range(start, start + count):
        family = chosen[i % len(chosen)]
        # What SeedSequence(seed).spawn gives as its child i.
        generator = default_rng(SeedSequence(seed, spawn_key=(i,)))
        models.append(draw_model(family, generator, f"{family}-{i:04d}", formats))
    return tuple(models)
