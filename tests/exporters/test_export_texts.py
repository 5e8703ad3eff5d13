from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evolve.exporters.texts import to_json, to_yaml

yaml = pytest.importorskip("yaml")

SCALARS = st.none() | st.booleans() | st.integers(-99, 99) | st.text()
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda each: st.lists(each) | st.dictionaries(st.text() | st.integers(-9, 9), each),
    max_leaves=12,
)


@given(VALUES)
def test_yaml_reads_back(value: Any) -> None:
    assert yaml.safe_load(to_yaml(value)) == value


def test_yaml_is_for_people() -> None:
    value = {"a": {"b": [{"c": 1, -1: 32}, "d"]}, "e": [1, 2], "f": {}, "g": []}
    lines = [
        '"a":',
        '  "b":',
        '    - "c": 1',
        "      -1: 32",
        '    - "d"',
        '"e": [1, 2]',
        '"f": {}',
        '"g": []',
    ]
    assert to_yaml(value).splitlines() == lines


def test_json_reads_back() -> None:
    assert json.loads(to_json({"ä": [1, None]})) == {"ä": [1, None]}
