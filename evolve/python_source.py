"""Python source of rules and plugins: executed, blamed by line, measured."""

from __future__ import annotations

import ast
import sys
import traceback
from functools import cache
from types import ModuleType
from typing import Any

import numpy as np

from evolve.errors import TemplateError
from evolve.heuristics import Rule

#: What rules and plugins take for the name of their module.
_MODULE = "evolve_rule"


def line_in(error: BaseException, file: str) -> int | None:
    """Return the line of a file in which an error arose: the innermost one of its traceback."""
    frames = traceback.walk_tb(error.__traceback__)
    lines = [line for frame, line in frames if frame.f_code.co_filename == file]
    return lines[-1] if lines else None


def execute(source: str, file: str) -> dict[str, Any]:
    """Execute Python text as a module of its own; returns what it defines, by name.

    Raises:
        TemplateError: The text is no Python or fails when executed; names file and line.
    """
    # Dataclasses look up the module they are defined in, and fail where there is none.
    sys.modules.setdefault(_MODULE, ModuleType(_MODULE))
    namespace: dict[str, Any] = {"np": np, "__name__": _MODULE, "__file__": file}
    try:
        code = compile(source, file, "exec", dont_inherit=True)
    except SyntaxError as error:
        text = error.text.strip() if error.text else None
        place = f"line {error.lineno}" if error.lineno else None
        raise TemplateError(f"not Python: {error.msg}", file=file, place=place, found=text) from error
    except ValueError as error:
        raise TemplateError(f"not Python: {error}", file=file) from error
    try:
        exec(code, namespace)  # noqa: S102 - running plugins is what we do
    except (Exception, SystemExit) as error:
        line = line_in(error, file)
        raise TemplateError(
            f"fails when loaded: {type(error).__name__}: {error}",
            file=file,
            place=f"line {line}" if line else None,
        ) from error
    return namespace


def compile_rule(source: str, file: str = "<rule>") -> Rule:
    """Execute a rule's source and return its function ``allocate``.

    Raises:
        TemplateError: The source is no Python, fails when executed, or defines no ``allocate``.
    """
    rule = execute(source, file).get("allocate")
    if not callable(rule):
        raise TemplateError("defines no rule", file=file, expected="a function allocate(model, p)")
    allocate: Rule = rule
    return allocate


@cache
def complexity(source: str) -> int:
    """Count the nodes of the syntax tree of ``allocate``, without docstring, annotations and decorators.

    What is no Python has none.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return 0
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.name == "allocate":
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            return sum(map(_count_nodes, body))
    return 0


def _count_nodes(tree: ast.AST) -> int:
    # Every rule that a search tries is counted: `ast.walk` takes three times as long.
    count, left = 0, [tree]
    while left:
        node = left.pop()
        count += 1
        for name in node._fields:
            value = getattr(node, name, None)
            if isinstance(value, ast.AST):
                left.append(value)
            elif isinstance(value, list):
                left += [each for each in value if isinstance(each, ast.AST)]
    return count
