"""Named tables with a row a layer: what a profile may hold beside the published signals.

Costs (latency, operations) and measurements (Fisher information, change of loss) differ from one
network to the next, so each profile names its own. A table is one number a layer, (L,), or one a
layer and format, (L, K). In JSON each layer holds its row: ``"costs": {"latency_ms": [0.2, 0.4]}``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evolve.fields import Field, fault_in, near_match, parse_value

FloatArray = NDArray[np.float64]
LayerTables = Mapping[str, FloatArray]

_NUMBER = Field("a finite number", (int, float))
_ROWS = Field("an object of numbers, or of lists of one number a format", dict)


def freeze_tables(kind: str, tables: Mapping[str, ArrayLike], L: int, K: int) -> LayerTables:
    """Return read-only copies of tables, by name in alphabetical order.

    Args:
        kind: What errors call them: ``costs``, ``measurements``.
        tables: Arrays of finite numbers, (L,) or (L, K).
        L: Number of layers.
        K: Number of formats.

    Raises:
        ProfileError: A name is no word, or an array has the wrong shape or a number that is not finite.
    """
    frozen = {}
    for name in sorted(tables):
        if not name.isidentifier():
            raise fault_in("bad name", None, kind, "names of letters, digits and underscores", name)
        array = np.array(tables[name], dtype=np.float64)
        if array.shape not in ((L,), (L, K)):
            expected = f"(L,) = {(L,)} or (L, K) = {(L, K)}"
            raise fault_in("wrong shape", None, f"{kind}.{name}", expected, array.shape)
        outside = np.argwhere(~np.isfinite(array))
        if len(outside):
            found = array[tuple(outside[0])].item()
            raise fault_in(
                "out of bounds", f"layer {outside[0][0]}", f"{kind}.{name}", _NUMBER.expected, found
            )
        array.setflags(write=False)
        frozen[name] = array
    return MappingProxyType(frozen)


def check_bits(table: FloatArray, L: int, formats: Sequence[str]) -> None:
    """Refuse bits per weight that are not one number from 0.01 to 64 a layer and format.

    Args:
        table: Bits, (L, K).
        L: Number of layers.
        formats: Names of the formats, (K,).

    Raises:
        ProfileError: Naming the layer and the format.
    """
    shape = (L, len(formats))
    if table.shape != shape:
        raise fault_in("wrong shape", None, "layer_bits", f"(L, K) = {shape}", table.shape)
    # Written so that NaN, which compares false with everything, is caught too.
    outside = np.argwhere(~((table >= 0.01) & (table <= 64)))
    if len(outside):
        layer, place = outside[0].tolist()
        label, words = f"bits[{formats[place]}]", "a number from 0.01 to 64"
        raise fault_in("out of bounds", f"layer {layer}", label, words, table[layer, place].item())


def find_table(kind: str, tables: LayerTables, name: str) -> FloatArray:
    """Return the table of that name.

    Raises:
        ProfileError: There is none.
    """
    if name not in tables:
        known = ", ".join(tables) or "none at all"
        cure = near_match(name, tables) if tables else None
        raise fault_in("no such table", None, kind, f"one of {known}", name, cure)
    return tables[name]


def row_to_json(tables: LayerTables, layer: int) -> dict[str, Any]:
    """Return a layer's row of every table."""
    return {name: table[layer].tolist() for name, table in tables.items()}


def parse_tables(kind: str, rows: Sequence[Mapping[str, Any]], order: Sequence[int]) -> dict[str, FloatArray]:
    """Put the layers' rows together.

    Args:
        kind: The field that holds them in each layer.
        rows: The layers as parsed JSON, each with or without that field, (L,).
        order: Where each format stands in the lists, by increasing bits, (K,).

    Returns:
        The tables by name, each (L,) or (L, K).

    Raises:
        ProfileError: A layer lacks a table that another has, or a value is no number or list of K.
    """
    given = [parse_value(row.get(kind, {}), _ROWS, kind, f"layer {layer}") for layer, row in enumerate(rows)]
    tables = {}
    for name in sorted({name for each in given for name in each}):
        column = []
        for layer, each in enumerate(given):
            place, field = f"layer {layer}", f"{kind}.{name}"
            if name not in each:
                raise fault_in("missing field", place, field, "the tables that every layer has", sorted(each))
            column.append(_parse_row(each[name], place, field, order))
            if len(column[layer]) != len(column[0]):
                raise fault_in(
                    "wrong length", place, field, f"{len(column[0])} as in layer 0", len(column[layer])
                )
        array = np.array(column)
        tables[name] = array if isinstance(given[0][name], list) else array[:, 0]
    return tables


def parse_table(field: str, rows: Sequence[Mapping[str, Any]], order: Sequence[int]) -> FloatArray | None:
    """Return the (L, K) table whose rows the layers hold in a field of their own, None if none has it.

    Raises:
        ProfileError: Some layers lack it, or a value is no list of K numbers.
    """
    if not any(field in row for row in rows):
        return None
    column = []
    for layer, row in enumerate(rows):
        value = row.get(field)
        if not isinstance(value, list):
            raise fault_in(
                "wrong type", f"layer {layer}", field, f"{len(order)} numbers, one a format", value
            )
        column.append(_parse_row(value, f"layer {layer}", field, order))
    return np.array(column)


def _parse_row(value: Any, place: str, field: str, order: Sequence[int]) -> list[float]:
    if not isinstance(value, list):
        return [float(parse_value(value, _NUMBER, field, place))]
    if len(value) != len(order):
        raise fault_in("wrong length", place, field, f"{len(order)} numbers, one a format", len(value))
    return [float(parse_value(value[at], _NUMBER, field, place)) for at in order]
