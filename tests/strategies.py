"""Hypothesis strategies that several test files share."""

from __future__ import annotations

import dataclasses
import itertools
import string

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from evolve.formats import PrecisionFormat, known_formats
from evolve.profiles import LAYER_TYPES, ModelProfile

# A busy machine is not a failure of the code under test.
settings.register_profile("evolve", deadline=None)
settings.load_profile("evolve")

# Known ones, and some that only a profile could describe: fractions of bits, a known name reused.
FORMATS = (
    *known_formats(),
    PrecisionFormat("INT4_GROUP32", 4.5, "integer"),
    PrecisionFormat("TERNARY", 1.58, "codebook"),
    PrecisionFormat("FP64", 64, "float"),
)

NAMES = st.text(string.ascii_letters + string.digits + " -_./é層", min_size=1, max_size=20).filter(str.strip)


def numbers(low: float, high: float) -> st.SearchStrategy[float]:
    return st.floats(low, high, allow_nan=False, allow_subnormal=False)


def formats(least: int = 1, most: int = 8) -> st.SearchStrategy[tuple[PrecisionFormat, ...]]:
    """Any subset of the formats, by non-decreasing bits."""
    subsets = st.lists(
        st.sampled_from(FORMATS), min_size=least, max_size=most, unique_by=lambda each: each.name
    )
    return subsets.map(lambda chosen: tuple(sorted(chosen, key=lambda each: each.bits)))


@st.composite
def profiles(
    draw: st.DrawFn,
    min_layers: int = 1,
    max_layers: int = 12,
    min_formats: int = 1,
    max_formats: int = 8,
    max_params: int = 10**9,
    max_sensitivity: float = 0.999,
    monotone: bool = False,
) -> ModelProfile:
    """Any valid profile; with ``monotone``, more bits never lose more accuracy."""
    L = draw(st.integers(min_layers, max_layers))
    chosen = draw(formats(min_formats, max_formats))
    K = len(chosen)

    def column(low: float, high: float) -> np.ndarray:
        return np.array(draw(st.lists(numbers(low, high), min_size=L, max_size=L)))

    cells = draw(st.lists(numbers(0, max_sensitivity), min_size=L * K, max_size=L * K))
    table = np.array(cells).reshape(L, K)
    if monotone:
        table = -np.sort(-table, axis=1)
    sizes = st.lists(st.integers(1, max_params), min_size=L, max_size=L)
    return ModelProfile(
        name=draw(NAMES),
        formats=chosen,
        layer_type=tuple(draw(st.lists(st.sampled_from(LAYER_TYPES), min_size=L, max_size=L))),
        layer_index=np.array(draw(st.permutations(range(L)))),
        num_params=np.array(draw(sizes)),
        weight_mean=column(-10, 10),
        weight_std=column(0, 10),
        weight_range=column(0, 100),
        activation_range=column(0, 1000),
        gradient_sensitivity=column(0, 1),
        sensitivity=table,
        description=draw(st.text(max_size=10)),
        seed=draw(st.none() | st.integers(0, 2**128)),
        source=draw(st.sampled_from(("", "measured"))),
    )


@st.composite
def constrained_profiles(
    draw: st.DrawFn,
    min_layers: int = 1,
    max_layers: int = 5,
    min_formats: int = 1,
    max_formats: int = 3,
    max_sensitivity: float = 0.4,
) -> ModelProfile:
    """Small profiles with ties and costs, (L,) and (L, K); in some, each layer has bits of its own."""
    plain = draw(
        profiles(
            min_layers,
            max_layers,
            min_formats,
            max_formats,
            max_params=10**6,
            max_sensitivity=max_sensitivity,
        )
    )
    L, K = plain.sensitivity.shape
    order = draw(st.permutations(range(L)))
    ends = sorted(draw(st.sets(st.integers(0, L), max_size=3)))
    groups = [tuple(order[low:high]) for low, high in itertools.pairwise(ends)]

    def table(low: float, high: float) -> np.ndarray:
        cells = st.lists(numbers(low, high), min_size=L * K, max_size=L * K)
        return np.array(draw(cells)).reshape(L, K)

    return dataclasses.replace(
        plain,
        tied_layers=tuple(each for each in groups if len(each) > 1),
        layer_names=draw(st.sampled_from([(), tuple(f"block.{at}" for at in range(L))])),
        layer_shapes=draw(st.sampled_from([(), tuple((1, int(each)) for each in plain.num_params)])),
        layer_bits=table(1, 32) if draw(st.booleans()) else None,
        costs={"latency_ms": table(0, 10), "energy": table(0, 10), "operations": table(0, 10)[:, 0]},
    )
