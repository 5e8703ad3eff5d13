"""Names and shapes of layers, and groups of layers that share one format."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evolve.fields import Field, Words, fault_in

TIES = Field("a list of lists of positions in layers", list)
MOST_AXES = 7
ALIASES = Field("a list of texts", list)
AXIS = Field(f"a whole number from 0 to {MOST_AXES}", int, 0, MOST_AXES)
EXPERTS = Field("a whole number, at least 1, that divides num_params", int, 1)


def check_names(names: Sequence[str], L: int) -> None:
    """Refuse names that are not one printable text a layer, each another.

    Raises:
        ProfileError: Naming the layer.
    """
    if names and len(names) != L:
        raise fault_in("wrong shape", None, "layer_names", f"(L,) = {(L,)} or none", (len(names),))
    seen: dict[str, int] = {}
    for layer, name in enumerate(names):
        place = f"layer {layer}"
        if not (name.strip() and name.isprintable()):
            raise fault_in("bad name", place, "name", "a printable text that is not empty", name)
        if name in seen:
            words = f"another name than that of layer {seen[name]}"
            raise fault_in("name given twice", place, "name", words, name)
        seen[name] = layer


def check_shapes(shapes: Sequence[Sequence[int]], num_params: Sequence[int]) -> None:
    """Refuse shapes that are not one of whole numbers a layer, their product its number of weights.

    Raises:
        ProfileError: Naming the layer.
    """
    L = len(num_params)
    if shapes and len(shapes) != L:
        raise fault_in("wrong shape", None, "layer_shapes", f"(L,) = {(L,)} or none", (len(shapes),))
    for layer, (shape, count) in enumerate(zip(shapes, num_params if shapes else (), strict=True)):
        whole = all(type(each) is int and each >= 1 for each in shape)
        if not whole or math.prod(shape) != count:
            words = f"whole numbers, at least 1, whose product is {count}"
            raise fault_in("wrong shape", f"layer {layer}", "shape", words, tuple(shape))


def check_aliases(aliases: Sequence[Sequence[str]], names: Sequence[str], L: int) -> None:
    """Refuse further names of layers that are no printable texts, or that another layer has.

    Raises:
        ProfileError: Naming the layer.
    """
    if aliases and len(aliases) != L:
        raise fault_in("wrong shape", None, "layer_aliases", f"(L,) = {(L,)} or none", (len(aliases),))
    taken = set(names)
    for layer, own in enumerate(aliases):
        for name in own:
            if type(name) is not str or not (name.strip() and name.isprintable()) or name in taken:
                words = "printable texts that are not empty, none of which is another name too"
                raise fault_in("bad name", f"layer {layer}", "aliases", words, name)
            taken.add(name)


def check_axes(axes: Sequence[int], L: int) -> None:
    """Refuse axes that are not one whole number a layer.

    Raises:
        ProfileError: Naming the layer.
    """
    if axes and len(axes) != L:
        raise fault_in("wrong shape", None, "channel_axes", f"(L,) = {(L,)} or none", (len(axes),))
    for layer, axis in enumerate(axes):
        if type(axis) is not int or not 0 <= axis <= MOST_AXES:
            raise fault_in("out of bounds", f"layer {layer}", "channel_axis", AXIS.expected, axis)


def check_experts(counts: Sequence[int], num_params: Sequence[int]) -> None:
    """Refuse numbers of stacked matrices that are not one whole number a layer which divides its weights.

    Raises:
        ProfileError: Naming the layer.
    """
    L = len(num_params)
    if counts and len(counts) != L:
        raise fault_in("wrong shape", None, "num_experts", f"(L,) = {(L,)} or none", (len(counts),))
    for layer, (count, weights) in enumerate(zip(counts, num_params if counts else (), strict=True)):
        if type(count) is not int or count < 1 or weights % count:
            raise fault_in("out of bounds", f"layer {layer}", "num_experts", EXPERTS.expected, count)


def check_ties(groups: Sequence[Sequence[int]], L: int) -> None:
    """Refuse groups of tied layers that overlap or name a layer that is not there.

    Raises:
        ProfileError: Naming the position.
    """
    seen: set[int] = set()
    for group in groups:
        for layer in group:
            if not 0 <= layer < L or layer in seen:
                words = f"positions from 0 to {L - 1}, each at most once"
                raise fault_in("bad tie", None, "tied_layers", words, layer)
            seen.add(layer)


def parse_column(field: str, rows: Sequence[Mapping[str, Any]], words: str) -> tuple[Any, ...]:
    """Return what every layer holds in a field of its own, (L,), or none.

    Args:
        field: The field.
        rows: The layers as parsed JSON.
        words: What it is, for errors.

    Raises:
        ProfileError: Some layers have one and some have none.
    """
    given = [row[field] for row in rows if field in row]
    if given and len(given) < len(rows):
        at = next(layer for layer, row in enumerate(rows) if field not in row)
        raise fault_in(
            "missing field", f"layer {at}", field, f"{words}, as other layers have", Words("nothing")
        )
    return tuple(given)


def parse_ties(groups: Sequence[Any]) -> tuple[tuple[int, ...], ...]:
    """Return groups of positions as JSON holds them.

    Raises:
        ProfileError: A group is no list of whole numbers.
    """
    for group in groups:
        whole = isinstance(group, list) and all(type(each) is int for each in group)
        if not whole:
            raise fault_in("bad tie", None, "tied_layers", TIES.expected, group)
    return tuple(map(tuple, groups))


def widest_of_groups(choices: NDArray[np.uint8], groups: Sequence[Sequence[int]]) -> NDArray[np.uint8]:
    """Return allocations in which tied layers share the widest format that one of them has.

    That is how ties are kept everywhere: no layer gets less than what was chosen for it.

    Args:
        choices: Format indices by non-decreasing bits, (L,) or (P, L).
        groups: Groups of layers that share one format, none in two of them.

    Returns:
        Format indices of the same shape; the argument itself where there are no groups.
    """
    groups = [each for each in groups if each]
    if not groups:
        return choices
    sizes = [len(each) for each in groups]
    members = np.concatenate(groups).astype(np.int64)
    starts = np.cumsum([0, *sizes[:-1]])
    widest = np.maximum.reduceat(choices[..., members], starts, axis=-1)
    tied = choices.copy()
    tied[..., members] = np.repeat(widest, sizes, axis=-1)
    return tied
