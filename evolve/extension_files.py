"""Reads a plugin file that holds an operator or a search strategy: ``NAME.py``, declared by a decorator."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

from evolve.errors import PluginError
from evolve.extensions import METHODS, Extension, ExtensionDeclaration, Kind, OperatorPlugin, StrategyPlugin
from evolve.python_source import execute

#: Words with a meaning of their own where operators are named.
_WORDS = ("seed", "default")
_ARGUMENTS = {1: "(parent, template, words)", 2: "(first, second, templates, words)"}
_CURE = "'evolve heuristics new NAME --kind {}' writes a working one to start from."


def extension_kind(text: str) -> Kind | None:
    """Return what a Python file declares by a decorator: an operator, a strategy, or neither."""
    kinds = [kind for _, kind in _declared(text)]
    return kinds[0] if kinds else None


def _declared(text: str) -> Iterator[tuple[int, Kind]]:
    """Yield the line and kind of whatever ``@operator(...)`` or ``@strategy`` stands above."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return  # said with its line when it is loaded
    for node in tree.body:
        for decorator in getattr(node, "decorator_list", []):
            called = decorator.func if isinstance(decorator, ast.Call) else decorator
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", None)
            for kind in get_args(Kind):
                if name == kind:
                    yield node.lineno, kind


def load_extension(file: Path, name: str, text: str) -> Extension:
    """Load an operator or a strategy.

    Args:
        file: The plugin.
        name: Its name: the file's.
        text: Its content.

    Raises:
        PluginError: It does not keep the contract; names file and line.
    """
    lines = [line for line, _ in _declared(text)]
    if len(lines) > 1:
        raise PluginError(
            "declares more than one operator or strategy",
            file=file,
            place=f"line {lines[1]}",
            expected="one a file, which has the file's name",
        )
    place = f"line {lines[0]}"
    found = [each for each in execute(text, str(file)).values() if _declaration_of(each)]
    if len(found) != 1:
        expected = "@operator(...) above a function or @strategy above a class, from evolve.extensions"
        raise PluginError("declares nothing", file=file, place=place, expected=expected)
    declaration = _declaration_of(found[0])
    assert declaration is not None
    if name in _taken(declaration.kind):
        problem = f"this name belongs to a built-in {declaration.kind}"
        raise PluginError(problem, file=file, place=place, found=name, cure="Give the file another name.")
    summary = (inspect.getdoc(found[0]) or "").split("\n")[0]
    if declaration.kind == "operator":
        _check_operator(found[0], declaration.parents, file, place)
        return OperatorPlugin(name, str(file), text, summary, declaration.parents, found[0], lines[0])
    _check_strategy(found[0], file, place)
    return StrategyPlugin(name, str(file), text, summary, found[0], lines[0])


def _declaration_of(value: Any) -> ExtensionDeclaration | None:
    # Not inherited: a class may be made from another strategy.
    found = getattr(value, "__dict__", {}).get("extension")
    return found if isinstance(found, ExtensionDeclaration) else None


def _taken(kind: Kind) -> tuple[str, ...]:
    # Here, for the search takes time to load and few folders hold such a plugin.
    from evolve.search import STRATEGIES
    from evolve.search.base import OPERATORS

    return (*OPERATORS, *_WORDS) if kind == "operator" else tuple(STRATEGIES)


def _accepts(called: Callable[..., Any], count: int) -> bool:
    try:
        inspect.signature(called).bind(*range(count))
    except (TypeError, ValueError):
        return False
    return True


def _check_operator(vary: Any, parents: int, file: Path, place: str) -> None:
    if inspect.isfunction(vary) and _accepts(vary, parents + 2):
        return
    raise PluginError(
        "an operator cannot be called so" if callable(vary) else "an operator is a function",
        file=file,
        place=place,
        expected=f"a function of {_ARGUMENTS[parents]} for parents={parents}",
        cure=_CURE.format("operator"),
    )


def _check_strategy(made: Any, file: Path, place: str) -> None:
    missing = [name for name in METHODS if not callable(getattr(made, name, None))]
    if not inspect.isclass(made):
        problem, expected = "a strategy is a class", "@strategy above a class"
    elif missing:
        problem, expected = f"the strategy has no {missing[0]}", f"methods {', '.join(METHODS)}"
    elif not _accepts(made, 2):
        problem = "the strategy cannot be made of a problem"
        expected = "def __init__(self, problem, novelty=None)"
    else:
        return
    raise PluginError(problem, file=file, place=place, expected=expected, cure=_CURE.format("strategy"))
