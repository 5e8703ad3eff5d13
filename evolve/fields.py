"""Reads JSON strictly: every field known, present, of its type and within its bounds.

Each fault is one `ProfileError` that says where it is, what was expected and what was found.
"""

from __future__ import annotations

import gzip
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from evolve.errors import InputError, ProfileError

_GZIP = b"\x1f\x8b"


class Field(NamedTuple):
    """What a field must be: the words for people, the type, and bounds if it is a number."""

    expected: str
    kind: type | tuple[type, ...]
    low: float = float(np.finfo(np.float64).min)
    high: float = float(np.finfo(np.float64).max)


class _Object(dict[str, Any]):
    """A JSON object that remembers a key given twice."""

    repeated: str | None = None


def _remember_repeated(pairs: list[tuple[str, Any]]) -> _Object:
    result, seen = _Object(pairs), set[str]()
    for key, _ in pairs:
        if key in seen:
            result.repeated = key
        seen.add(key)
    return result


def read_json(path: Path) -> object:
    """Return the JSON of a file, which may be compressed by gzip; objects remember a key given twice."""
    try:
        data = path.read_bytes()
        if data.startswith(_GZIP):
            data = gzip.decompress(data)
        return json.loads(data.decode("utf-8-sig"), object_pairs_hook=_remember_repeated)
    except (EOFError, gzip.BadGzipFile, zlib.error) as fault:
        raise ProfileError(f"damaged ({fault})", expected="JSON compressed by gzip") from None
    except FileNotFoundError:
        raise ProfileError("no such file", expected="a JSON file") from None
    except IsADirectoryError:
        raise ProfileError("is a folder", expected="a JSON file", cure="Name one file in it.") from None
    except OSError as fault:
        raise ProfileError(f"cannot be read ({fault.strerror})", expected="a JSON file") from None
    except UnicodeDecodeError as fault:
        raise ProfileError("not UTF-8", place=f"byte {fault.start}", expected="JSON in UTF-8") from None
    except json.JSONDecodeError as fault:
        place = f"line {fault.lineno}, column {fault.colno}"
        raise ProfileError("not JSON", place=place, expected="JSON", cure=f"{fault.msg}.") from None
    except RecursionError:
        raise ProfileError("nested too deeply", expected="the published JSON form of a profile") from None
    except ValueError as fault:
        # A path with a null byte, or a number of more digits than Python converts.
        raise ProfileError(f"cannot be read ({fault})", expected="a JSON file") from None


def parse_object(
    data: object,
    required: Mapping[str, Field],
    optional: Mapping[str, Field] | None = None,
    place: str | None = None,
) -> dict[str, Any]:
    """Return an object's values by field, each checked; none missing, none unknown."""
    known = {**required, **(optional or {})}
    if not isinstance(data, dict):
        raise fault_in("not an object", place, None, f"an object with {', '.join(required)}", data)
    if isinstance(data, _Object) and data.repeated is not None:
        raise fault_in("field given twice", place, data.repeated, "each field once", data.repeated)
    for name in data:
        if name not in known:
            raise fault_in("unknown field", place, str(name), None, None, near_match(str(name), known))
    for name, field in required.items():
        if name not in data:
            raise fault_in("missing field", place, name, field.expected, Words("nothing"))
    return {name: parse_value(value, known[name], name, place) for name, value in data.items()}


def parse_value(value: Any, field: Field, name: str, place: str | None) -> Any:
    """Return a value if it is what its field must be."""
    # To Python a bool is an int, to people it is not.
    if isinstance(value, bool) or not isinstance(value, field.kind):
        raise fault_in("wrong type", place, name, field.expected, value)
    if isinstance(value, int | float) and not field.low <= value <= field.high:
        raise fault_in("out of bounds", place, name, field.expected, value)
    return value


class Words(str):
    """Text that an error shows as it is, without quotes."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def fault_in(
    problem: str,
    place: str | None,
    field: str | None,
    expected: str | None,
    found: Any,
    cure: str | None = None,
) -> ProfileError:
    """Return the error for a value, shown as a person would describe it."""
    if isinstance(found, dict):
        found = Words("an object")
    elif isinstance(found, list) and not all(isinstance(each, str | float) for each in found):
        found = Words(f"a list of {len(found)}")
    elif found is None and expected is not None:
        found = Words("null")
    return ProfileError(problem, place=place, field=field, expected=expected, found=found, cure=cure)


def near_match(name: str, known: Mapping[str, Any] | tuple[str, ...]) -> str:
    """Return the cure for a misspelt name."""
    near = get_close_matches(name, known, 1)
    return f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."


@contextmanager
def blamed_on(file: str | os.PathLike[str] | None) -> Iterator[None]:
    """Name the file in every error, and make each a ProfileError."""
    try:
        yield
    except InputError as fault:
        details = {name: getattr(fault, name) for name in ("place", "field", "expected", "found", "cure")}
        raise ProfileError(fault.problem, file=fault.file or file, **details) from None
