"""Spends a budget to the last bit as a rule would: exactly, on the losses that its price implies.

A price moves several layers at once, and in a small network a layer is a large part of all weights, so the
allocation of one price leaves up to a tenth of a budget unused. But the price at which a rule widens a
layer says what it thinks that is worth: a Lagrangian widens it when the loss avoided is the bits over the
price (Everett 1963). With these losses the exact solver fills the budget. For a Lagrangian they are those
it was made of, on the convex hull of each layer.

Shapes: S values of the price, L layers, K formats, G groups of tied layers.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from evolve.heuristics import Rule
from evolve.layer_groups import widest_of_groups
from evolve.optimum import tied_groups
from evolve.parameters import Parameter
from evolve.profiles import ModelProfile
from evolve.rule_calls import Failure, Task, allocate
from evolve.views import ModelView
from transfer_study.rivals import size_of

FloatArray = NDArray[np.float64]
_SWEPT = 1025
#: How much more the first bits are worth than the last ones where the price has no scale of its own.
_RANGE = math.log(1e6)
#: The loss of a format that the rule never chooses for a layer, times the largest of those it does.
_NEVER = 1e3


def implied_losses(rule: Rule, task: Task, level: str, profile: ModelProfile) -> FloatArray | None:
    """Return the losses that the sweep of a rule's price implies, (L, K), up to a factor; None if it fails.

    Args:
        rule: The compiled rule.
        task: One vector of parameters, and which of them is the price.
        level: The information level that the rule may read.
        profile: The network.
    """
    assert task.sweep is not None
    units = np.linspace(0.0, 1.0, _SWEPT)
    values = np.repeat(task.values[:1], _SWEPT, axis=0)
    values[:, task.names.index(task.sweep.name)] = [task.sweep.from_unit(float(each), 15) for each in units]
    choices = allocate(rule, ModelView([profile], level), task.names, values)
    if isinstance(choices, Failure):
        return None
    choices = widest_of_groups(choices, profile.tied_layers)
    size = size_of(profile)
    bits = size[np.arange(profile.num_layers), choices].sum(axis=1)
    if bits[0] > bits[-1]:
        choices, bits = choices[::-1], bits[::-1]
    worth = np.exp(-_decay(task.sweep) * units)
    loss = np.empty_like(size)
    groups = tied_groups(profile.tied_layers, profile.num_layers)
    for group in range(int(groups.max()) + 1):
        members = np.flatnonzero(groups == group)
        own = size[members].sum(axis=0)
        loss[members] = _implied(choices[:, members[0]], own, worth) / len(members)
    return loss


def _decay(price: Parameter) -> float:
    return math.log(price.high / price.low) if price.scale == "log" else _RANGE


def _implied(chosen: NDArray[np.uint8], size: FloatArray, worth: FloatArray) -> FloatArray:
    """Return the losses of one group in each format, (K,).

    Args:
        chosen: Its format at each value of the price, (S,), from narrow to wide.
        size: Bits in each format, (K,).
        worth: What a bit is worth at each value, (S,).
    """
    steps = np.flatnonzero(np.diff(np.maximum.accumulate(size[chosen])) > 0) + 1
    path = [int(chosen[0]), *(int(chosen[step]) for step in steps)]
    saved = np.diff(size[path]) * worth[steps]
    losses = np.append(np.cumsum(saved[::-1])[::-1], 0.0)
    # What the rule never chooses is chosen only where nothing else is left.
    found = np.full(len(size), _NEVER * (losses[0] + worth[0] * size.max()))
    found[path] = losses
    return found
