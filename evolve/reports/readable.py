"""Shows a rule as a person would have written it: short lines, with names for what they put together.

What is shown is another text of the same rule. The search, its journal and a candidate's id know only the
rule as its template renders it; both allocate alike, to the bit.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from evolve.candidates import Candidate
from evolve.reports.cleaning import cleaned
from evolve.reports.naming import called, part_name
from evolve.templates import Template

#: A part of an expression, and what it stands in, the innermost first.
_Part = tuple[ast.expr, tuple[ast.expr, ...]]
#: No line is longer, and rules without long lines stay as they are.
WIDTH = 100
_COMFORTABLE = 88
#: Widths to try, until the body has no more lines than a reader takes in at once.
_WIDTHS = (_COMFORTABLE, WIDTH)
_MOST_LINES = 15
_INDENT = "    "
#: Parts of fewer characters are as clear as any name for them.
_SHORTEST = 18
_SHORTEST_REPEATED = 24
#: What has names of its own, or does not compute all its parts.
_OWN = (ast.Lambda, ast.comprehension, ast.NamedExpr, ast.IfExp, ast.BoolOp)
#: How much longer a line one bears for a part that is a thing by itself.
_AWKWARD = {ast.Call: 0, ast.Compare: 4, ast.BinOp: 8, ast.UnaryOp: 30}


@dataclass(frozen=True)
class ShownRule:
    """A rule as readers see it.

    Attributes:
        source: Python that defines ``allocate(model, p)``.
        parameters: (name, value) of the numbers that it reads as ``p.name``.
    """

    source: str
    parameters: tuple[tuple[str, float], ...]


def shown_rule(candidate: Candidate, template: Template) -> ShownRule:
    """Return a candidate's rule cleaned, its long expressions split; what a person wrote stays as it is."""
    if template.kind == "function":
        return ShownRule(template.source(candidate), candidate.parameters)
    source = readable(without_unread(template.source(cleaned(candidate, template))))
    read = set(_parameters_read(source))
    return ShownRule(source, tuple(each for each in candidate.parameters if each[0] in read))


def values_above(parameters: Iterable[tuple[str, float]]) -> str:
    """Return the numbers of a rule as comments to stand above it."""
    return "".join(f"# p.{name} = {value!r}\n" for name, value in parameters)


def _parameters_read(source: str) -> Iterator[str]:
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(ast.Name("p"), name):
                yield name


def without_unread(source: str) -> str:
    """Drop the lines of a template's rule that compute what its slots do not read."""
    while True:
        nodes = list(ast.walk(ast.parse(source)))
        read = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
        unread = [
            node
            for node in nodes
            if isinstance(node, ast.Assign)
            and all(isinstance(each, ast.Name) and each.id not in read for each in node.targets)
        ]
        if not unread:
            return source
        gone = {line for node in unread for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)}
        lines = source.splitlines(keepends=True)
        source = "".join(line for number, line in enumerate(lines, 1) if number not in gone)


def readable(source: str) -> str:
    """Split the long expressions of a rule into named intermediate values.

    Args:
        source: Python that defines ``allocate(model, p)`` and nothing else, without branches or loops;
            anything else is returned as it is.
    """
    lines = source.splitlines()
    if max(map(len, lines), default=0) <= _COMFORTABLE:
        return source
    statements = _statements(source)
    if not statements:
        return source
    head = lines[: len(lines) - sum(len(each.written) for each in statements)]
    splits = (_Splitting(width).lines(statements) for width in _WIDTHS)
    found = next((each for each in splits if len(each) <= _MOST_LINES), None)
    return "\n".join([*head, *(found or _Splitting(WIDTH).lines(statements))]) + "\n"


@dataclass(frozen=True)
class _Statement:
    """``name = value``, or ``return value`` without a name; its lines as written, if they still say that."""

    name: str
    value: ast.expr
    written: tuple[str, ...] = ()
    comments: tuple[str, ...] = ()

    @property
    def line(self) -> str:
        start = f"{self.name} = " if self.name else "return "
        return f"{_INDENT}{start}{_text(self.value)}"

    def with_part(self, part: str, name: str) -> _Statement:
        """Put a name wherever the value has a part of this text."""
        value = _Exchanged(part, name).visit(copy.deepcopy(self.value))
        same = _text(value) == _text(self.value)
        return self if same else _Statement(self.name, value, comments=self.comments)


def _statements(source: str) -> list[_Statement]:
    """Return the statements of ``allocate``; none if there is more to it than values with names."""
    lines, (rule, *others) = source.splitlines(), ast.parse(source).body
    if (
        others
        or not isinstance(rule, ast.FunctionDef)
        or any(isinstance(each, _OWN) for each in ast.walk(rule))
    ):
        return []
    found, end = [], rule.body[0].lineno - 1
    while lines[end - 1].lstrip().startswith("#"):
        end -= 1
    for each in rule.body:
        comments, end = tuple(lines[end : each.lineno - 1]), each.end_lineno or end
        if isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Name) and not each.targets[1:]:
            name, value = each.targets[0].id, each.value
        elif isinstance(each, ast.Return) and each.value is not None:
            name, value = "", each.value
        else:
            return []
        found.append(_Statement(name, value, (*comments, *lines[each.lineno - 1 : end]), comments))
    return found


def _text(node: ast.AST) -> str:
    text = ast.unparse(node)
    return text if '"' in text else text.replace("'", '"')


class _Exchanged(ast.NodeTransformer):
    """Puts a name wherever an expression reads like a given one."""

    def __init__(self, text: str, name: str) -> None:
        self._text, self._name = text, name

    def visit(self, node: ast.AST) -> Any:
        if isinstance(node, ast.expr) and _text(node) == self._text:
            return ast.Name(self._name)
        return self.generic_visit(node)


def _parts(node: ast.expr, above: tuple[ast.expr, ...] = ()) -> Iterator[_Part]:
    """Yield what stands in an expression, each with what it stands in itself, the innermost first."""
    for child in ast.iter_child_nodes(node):
        inner = child.value if isinstance(child, ast.keyword) else child
        if isinstance(inner, ast.expr):
            yield inner, (node, *above)
            yield from _parts(inner, (node, *above))


def _can_be_named(node: ast.expr) -> bool:
    """Tell whether a part can be computed on its own: operators and calls of numpy and the model."""
    plain = (ast.Call, ast.Attribute, ast.Name, ast.Constant, ast.BinOp, ast.UnaryOp, ast.Compare)
    inside = [node, *(each for each, _ in _parts(node))]
    known = all(isinstance(each, plain) for each in inside)
    ours = all(called(each) for each in inside if isinstance(each, ast.Call))
    return known and ours and isinstance(node, tuple(_AWKWARD))


class _Splitting:
    """Splits the statements of a rule until their lines have a given width."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._taken = {"np", "model", "p"}

    def lines(self, statements: Sequence[_Statement]) -> list[str]:
        """Return the lines of the body."""
        names = [
            node.id for each in statements for node in ast.walk(each.value) if isinstance(node, ast.Name)
        ]
        self._taken |= {*names, *(each.name for each in statements)}
        found = list(statements)
        # Where a name is given twice, it could mean something else by the second time.
        while len({each.name for each in found}) == len(found):
            again = self._once(found)
            if again == found:
                break
            found = again
        return [line for each in found for line in self._split(each)]

    def _once(self, statements: list[_Statement]) -> list[_Statement]:
        """Give a name to the longest part that is computed more than once, if there is any."""
        places: dict[str, list[tuple[int, _Part]]] = {}
        for place, each in enumerate(statements):
            for part, above in ((each.value, ()), *_parts(each.value)):
                if len(_text(part)) >= _SHORTEST_REPEATED and _can_be_named(part):
                    places.setdefault(_text(part), []).append((place, (part, above)))
        repeated = [text for text, found in places.items() if len(found) > 1]
        if not repeated:
            return statements
        longest = max(repeated, key=len)
        first, (part, above) = places[longest][0]
        named = [statements[place] for place, (_, above) in places[longest] if not above]
        if named and named[0].name:
            # It has a name already, only later than it could.
            fresh = named[0]
        else:
            fresh = _Statement(self._named(part, above, statements[first].name), part)
        rest = [each.with_part(longest, fresh.name) for each in statements[first:] if each is not fresh]
        return [*statements[:first], fresh, *rest]

    def _named(self, part: ast.expr, above: tuple[ast.expr, ...], whole: str) -> str:
        name = part_name(part, above, whole or "choice", self._taken)
        self._taken.add(name)
        return name

    def _split(self, statement: _Statement) -> Iterator[str]:
        """Yield the lines of a statement, those of its parts that got names first."""
        if statement.written and max(map(len, statement.written)) <= self._width:
            yield from statement.written
            return
        while len(statement.line) > self._width:
            best = min(
                (
                    (self._width_after(statement, part), place, part, above)
                    for place, (part, above) in enumerate(_parts(statement.value))
                    if len(_text(part)) >= _SHORTEST and _can_be_named(part)
                ),
                default=None,
                key=lambda each: each[:2],
            )
            if best is None or called(statement.value) == "by_type":
                break
            _, _, part, above = best
            name = self._named(part, above, statement.name)
            yield from self._split(_Statement(name, part))
            statement = statement.with_part(_text(part), name)
        yield from (*statement.comments, *_wrapped(statement))

    def _width_after(self, statement: _Statement, part: ast.expr) -> int:
        """Return how wide the wider line is once a part has a name, and a little more for an odd part."""
        inside = _text(part)
        # Numbers by type are a table, which stands on lines of its own.
        length = self._width if called(part) == "by_type" else len(inside)
        # A name takes some room.
        rest = len(statement.line) - len(inside) + _SHORTEST
        odd = 40 if called(part) == "is_type" else _AWKWARD[type(part)]
        return max(length + _SHORTEST, rest) + odd


def _wrapped(statement: _Statement) -> list[str]:
    """Return a statement's line; a long call has its arguments on lines of their own."""
    line = statement.line
    value = statement.value
    if len(line) <= WIDTH or not isinstance(value, ast.Call) or any(not each.arg for each in value.keywords):
        return [line]
    start = line[: line.index(_text(value.func)) + len(_text(value.func)) + 1]
    words = [*map(_text, value.args), *(f"{each.arg}={_text(each.value)}" for each in value.keywords)]
    filled = [2 * _INDENT]
    for word in words:
        if len(filled[-1]) + len(word) + 2 > WIDTH and filled[-1].strip():
            filled.append(2 * _INDENT)
        filled[-1] += ("" if not filled[-1].strip() else " ") + f"{word},"
    return [start, *filled, f"{_INDENT})"]
