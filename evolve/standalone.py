"""Reads a rule back from the file that stands alone: the ``champion.py`` of a report, or a rule of its front.

Such a file needs nothing of this package. It has ``rule(model, p)``, its numbers as ``PARAMETERS``, and
``allocate(profile)``, which takes a profile's JSON and is no rule of ours.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from evolve.parameters import Parameter

#: How far a number without bounds may go, as a factor up and down; one below 1 may be a share, and stays one.
_REACH = 1e4


@dataclass(frozen=True)
class Standalone:
    """A rule that stood alone.

    Attributes:
        source: Python that defines ``allocate(model, p)``.
        parameters: Its numbers; their bounds, which the file does not have, are wide.
    """

    source: str
    parameters: tuple[Parameter, ...]


def with_bounds_beside(path: Path) -> Path:
    """Return the ``champion.json`` beside a ``champion.py``, which has the bounds of its numbers."""
    beside = path.with_suffix(".json")
    return beside if path.name == "champion.py" and beside.is_file() else path


def find_standalone(path: Path) -> Standalone | None:
    """Return the rule of a file; None where it is no such file, or cannot be read."""
    if path.suffix != ".py" or not path.is_file():
        return None
    try:
        return read_standalone(path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError):
        return None  # a plugin that cannot be read says so itself


def read_standalone(text: str) -> Standalone | None:
    """Return the rule of a file's text; None where it is no such file."""
    try:
        tree = ast.parse(text)
        functions = {each.name: each for each in tree.body if isinstance(each, ast.FunctionDef)}
        classes = {each.name for each in tree.body if isinstance(each, ast.ClassDef)}
        if not ({"rule", "allocate"} <= set(functions) and "Model" in classes):
            return None
        values = _parameters(tree)
    except (SyntaxError, ValueError):
        return None
    # The rule and what it may call stay; what reads profiles and the command line goes.
    gone = {"allocate", "main"}
    kept = [
        each
        for each in tree.body
        if not (isinstance(each, ast.FunctionDef) and each.name in gone) and not isinstance(each, ast.If)
    ]
    given = ", ".join(("model", "p")[: len(functions["rule"].args.args)])
    source = ast.unparse(ast.Module(kept, []))
    source += f"\n\n\ndef allocate(model, p):\n    return rule({given})\n"
    return Standalone(source, tuple(_with_bounds(name, value) for name, value in values.items()))


def _parameters(tree: ast.Module) -> Mapping[str, float]:
    for each in tree.body:
        match each:
            case ast.Assign([ast.Name("PARAMETERS")], value):
                found = ast.literal_eval(value)
                return {str(name): float(number) for name, number in dict(found).items()}
    return {}


def _with_bounds(name: str, value: float) -> Parameter:
    if value <= 0:
        reach = 10 * max(1.0, -value)
        return Parameter(name, value, value - reach, value + reach)
    high = 1.0 if value < 1 else value * _REACH
    return Parameter(name, value, value / _REACH, high, "log")
