"""Writes documents: JSON, and the small part of YAML that recipes need."""

from __future__ import annotations

import json
import re
from typing import Any

#: What stands in a text as its number: YAML knows no pairs of surrogates, which JSON has instead.
_NOT_ASCII = re.compile(r"[^\x00-\x7e]")


def to_json(value: Any) -> str:
    """Return a value as indented JSON."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def to_yaml(value: Any) -> str:
    """Return dictionaries, lists and scalars as YAML, without a library.

    Texts, keys that are texts included, stand in JSON's quotes, which are YAML's too; keys may be whole
    numbers, which JSON cannot say. Reading it back gives an equal value.
    """
    return "\n".join(_lines(value)) + "\n"


def _lines(value: Any) -> list[str]:
    if isinstance(value, dict) and value:
        return [line for key, each in value.items() for line in _entry(f"{_scalar(key)}:", each)]
    if isinstance(value, list) and value and any(isinstance(each, dict | list) for each in value):
        return [line for each in value for line in _item(each)]
    return [_flow(value)]


def _entry(head: str, value: Any) -> list[str]:
    lines = _lines(value)
    nested = isinstance(value, dict | list) and not (len(lines) == 1 and lines[0] == _flow(value))
    return [head, *(f"  {line}" for line in lines)] if nested else [f"{head} {lines[0]}"]


def _item(value: Any) -> list[str]:
    first, *rest = _lines(value)
    return [f"- {first}", *(f"  {line}" for line in rest)]


def _flow(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_scalar(key)}: {_flow(each)}" for key, each in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _scalar(value)


def _scalar(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    return _NOT_ASCII.sub(lambda each: f"\\U{ord(each[0]):08x}", text)
