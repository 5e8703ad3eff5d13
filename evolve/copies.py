"""Altered copies of models, for a search that has too few of them.

A rule that is fitted to a few dozen models fits their accidents too: in which of them a large layer happens
to stand just beside a threshold. Copies in which layers of a type are larger or smaller and losses differ a
little have other accidents, and what a model and all its copies agree on is what carries over. This is data
augmentation as in the training of networks (Simard, Steinkraus & Platt 2003).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.random import default_rng

from evolve.profiles import MOST_PARAMS, ModelProfile

#: Standard deviation of the logarithm of the factor on the sizes of the layers of one type.
_SIZE_SPREAD = 0.5
#: The same for the factor on each layer's sensitivity in each format.
_LOSS_SPREAD = 0.05
#: No altered layer loses all accuracy.
_MOST_SENSITIVITY = 0.99


def altered_copies(profiles: Sequence[ModelProfile], count: int) -> tuple[ModelProfile, ...]:
    """Return the first altered copy of each of M models, then the second of each, and so on: (count · M)."""
    return tuple(altered_copy(each, number) for number in range(1, count + 1) for each in profiles)


def altered_copy(profile: ModelProfile, number: int) -> ModelProfile:
    """Return a copy in which sizes and losses differ; the same for the same profile and number.

    The layers of a type are all larger or smaller by one factor. What else the profile says of its layers
    stays as it is, so that a signal and the loss it foretells still belong together.

    Args:
        profile: The model.
        number: Which copy, from 1 on.
    """
    generator = default_rng([number, int(profile.content_hash[:16], 16)])
    types = sorted(set(profile.layer_type))
    factors = dict(zip(types, np.exp(generator.normal(0.0, _SIZE_SPREAD, len(types))), strict=True))
    sizes = profile.num_params * np.array([factors[name] for name in profile.layer_type])
    sizes *= min(1.0, 0.99 * MOST_PARAMS / sizes.sum())
    noise = np.exp(generator.normal(0.0, _LOSS_SPREAD, profile.sensitivity.shape))
    altered = np.minimum(profile.sensitivity * noise, np.maximum(profile.sensitivity, _MOST_SENSITIVITY))
    return replace(
        profile,
        name=f"{profile.name} ~{number}",
        num_params=np.maximum(1, np.rint(sizes)).astype(np.int64),
        sensitivity=altered,
        layer_shapes=(),
        description=f"altered copy {number} of {profile.name}",
        source="altered",
        provenance={},
    )
