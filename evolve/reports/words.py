"""Says in plain English what a rule does, from its code alone.

The rule's named intermediate values and parameters are put in their places first, which leaves
one expression, or one for each pass of a rule that chooses provisionally first. An expression is
read as a decision list, one sentence a clause. What has no words is quoted as code.
"""

from __future__ import annotations

import ast
import copy
import math
import operator
from collections.abc import Callable, Mapping

from evolve.formats import known_formats
from evolve.profiles import LAYER_TYPES
from evolve.reports.phrases import MEANINGS, listed, quantity, which
from evolve.reports.syntax import number_of, quoted, written_out

_OPERATORS: dict[type[ast.operator], Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_FUNCTIONS: dict[str, Callable[..., float]] = {
    "log": math.log,
    "log1p": math.log1p,
    "sqrt": math.sqrt,
    "exp": math.exp,
}
#: What a rule's provisional choices of formats are called.
_PASSES = ("first pass", "second pass", "third pass")
#: Rules that grow beyond this when their intermediate values are put in place are only summarised.
_MOST_NODES = 2000


class _NotOneExpressionError(Exception):
    """The rule branches, loops or is too long to be one expression."""


def in_words(source: str, parameters: Mapping[str, float]) -> str:
    """Return one paragraph of plain English that says what a rule does.

    Args:
        source: Python that defines ``allocate(model, p)``.
        parameters: The values of ``p``.

    Returns:
        The paragraph. Code it has no words for stands in backticks; a rule that is not one
        expression is summarised by what it reads and returns.
    """
    try:
        *passes, (_, result) = _as_expressions(source, parameters)
        sentences = [f"In a {name}, {_continued(_paragraph(choice))}" for name, choice in passes]
        last = _paragraph(result)
        return " ".join([*sentences, f"In the end, {_continued(last)}" if sentences else last])
    except Exception:  # noqa: BLE001 - a rule may be any Python, and a report needs some text for it
        return _summary(source)


def _computed(node: ast.expr, compute: Callable[..., float] | None, *values: float | None) -> ast.expr:
    """Return the value of an operation on constants; the node itself where there is none."""
    if compute is None or None in values:
        return node
    try:
        return ast.Constant(float(compute(*values)))
    except (ArithmeticError, ValueError):
        return node


class _PutInPlace(ast.NodeTransformer):
    """Puts the values of names and parameters in their places, and calls the model ``model``."""

    def __init__(self, rule: ast.FunctionDef, parameters: Mapping[str, float]) -> None:
        model, self._p = (each.arg for each in rule.args.posonlyargs + rule.args.args)
        self._parameters = parameters
        self.known: dict[str, ast.expr] = {model: ast.Name("model")}
        self._passes: list[ast.expr] = []

    def visit_Name(self, node: ast.Name) -> ast.expr:
        return self.known.get(node.id, node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        if isinstance(node.value, ast.Name) and node.value.id == self._p and node.attr in self._parameters:
            return ast.Constant(float(self._parameters[node.attr]))
        return self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        left, right = number_of(node.left), number_of(node.right)
        if isinstance(node.op, ast.Mult) and 1 in (left, right):
            return node.right if left == 1 else node.left
        return _computed(node, _OPERATORS.get(type(node.op)), left, right)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        return _computed(
            node, operator.neg if isinstance(node.op, ast.USub) else None, number_of(node.operand)
        )

    def visit_Call(self, node: ast.Call) -> ast.AST:
        match node:
            case ast.Call(ast.Attribute(_, "bits_of" | "pick"), [*_, ast.Name(name)]) if name in self.known:
                # Kept apart: the sums over what an earlier pass chose would be no sentence otherwise.
                earlier = self.known[name]
                if all(each is not earlier for each in self._passes):
                    self._passes.append(earlier)
                index = next(at for at, each in enumerate(self._passes) if each is earlier)
                node.args[-1] = ast.Name(_PASSES[index])
        self.generic_visit(node)
        match node:
            case ast.Call(ast.Attribute(ast.Name("np"), name), [argument], []):
                return _computed(node, _FUNCTIONS.get(name), number_of(argument))
        return node

    def put(self, node: ast.expr) -> ast.expr:
        """Return the expression with everything in place; the one given stays as it is."""
        placed: ast.expr = self.visit(copy.deepcopy(node))
        if sum(1 for _ in ast.walk(placed)) > _MOST_NODES:
            raise _NotOneExpressionError
        return placed

    def with_passes(self, result: ast.expr) -> list[tuple[str, ast.expr]]:
        """Return an expression as the last, after the named passes that it reads."""
        found = [("", result)]
        for name, choice in reversed(list(zip(_PASSES, self._passes, strict=False))):
            nodes = (node for _, each in found for node in ast.walk(each))
            if any(isinstance(node, ast.Name) and node.id == name for node in nodes):
                found.insert(0, (name, choice))
        return found

    def read(self, statement: ast.stmt) -> bool:
        """Remember the value of a name; return False if that is not what the statement says."""
        match statement:
            case ast.Assign([ast.Name(name)], value):
                self.known[name] = self.put(value)
            case ast.AnnAssign(ast.Name(name), _, ast.expr() as value):
                self.known[name] = self.put(value)
            case ast.AugAssign(ast.Name(name), symbol, value):
                self.known[name] = self.put(ast.BinOp(ast.Name(name), symbol, value))
            case _:
                return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
        return True


def _find_rule(tree: ast.Module) -> ast.FunctionDef:
    return next(each for each in tree.body if isinstance(each, ast.FunctionDef) and each.name == "allocate")


def _as_expressions(source: str, parameters: Mapping[str, float]) -> list[tuple[str, ast.expr]]:
    """Return the rule's choice of formats as the last expression, and the passes it builds on before."""
    tree = ast.parse(source)
    rule = _find_rule(tree)
    place = _PutInPlace(rule, parameters)
    for statement in tree.body:
        place.read(statement)
    for statement in rule.body:
        match statement:
            case ast.Return(ast.expr() as value):
                return place.with_passes(place.put(value))
        if not place.read(statement):
            raise _NotOneExpressionError
    raise _NotOneExpressionError


def _paragraph(result: ast.expr) -> str:
    clauses, otherwise = _decisions(result)
    while clauses and clauses[-1][1] == otherwise:
        clauses.pop()
    if not clauses:
        return f"{'All layers go' if _is_name(otherwise) else 'Each layer goes'} to {otherwise}."
    sentences: list[str] = []
    for mask, chosen in clauses:
        who = which(mask)
        comma = "," if ", or " in who or ", and " in who else ""
        start = "Of the rest, those" if sentences else "Layers"
        sentences.append(f"{start} {who}{comma} go to {chosen}.")
    return " ".join([*sentences, f"All others go to {otherwise}."])


def _continued(sentence: str) -> str:
    return sentence[0].lower() + sentence[1:]


def _is_name(text: str) -> bool:
    return text.replace("_", "").isalnum()


def _decisions(node: ast.expr) -> tuple[list[tuple[ast.expr, str]], str]:
    """Return a choice of formats as a decision list: clauses (mask, format), and the format of the rest."""
    match node:
        case ast.Call(ast.Attribute(ast.Name("model" | "np"), "where")):
            mask, chosen, rest = _arguments(node, "mask", "chosen", "otherwise")
            pairs = [(mask, chosen)]
        case ast.Call(ast.Attribute(ast.Name("model"), "select"), given, [ast.keyword("otherwise", rest)]):
            pairs = [_pair(each) for each in written_out(given)]
        case _:
            return [], _choice(node)
    clauses: list[tuple[ast.expr, str]] = []
    for mask, chosen in pairs:
        inner, last = _decisions(chosen)
        clauses += [(ast.BinOp(mask, ast.BitAnd(), each), name) for each, name in inner]
        clauses.append((mask, last))
    more, otherwise = _decisions(rest)
    return clauses + more, otherwise


def _pair(clause: ast.expr) -> tuple[ast.expr, ast.expr]:
    match clause:
        case ast.Tuple([mask, chosen]):
            return mask, chosen
    raise _NotOneExpressionError


def _arguments(call: ast.Call, *names: str) -> list[ast.expr]:
    """Return the arguments of a call, those given by name in their places."""
    named = {each.arg: each.value for each in call.keywords}
    return [*call.args, *(named[name] for name in names[len(call.args) :])]


def _choice(node: ast.expr) -> str:
    match node:
        case ast.Constant(str(name)):
            return name
        case ast.Call(ast.Attribute(ast.Name("model"), "cheapest"), [cost]):
            return f"the format of least cost, where the cost is {quantity(cost)}"
        case ast.Call(ast.Attribute(ast.Name("model"), "narrowest"), [allowed]):
            return f"the narrowest format {which(allowed)}, or the widest where there is none"
    return f"the format given by {quoted(node)}"


def _summary(source: str) -> str:
    """Say of a rule that is not one expression what it reads and returns."""
    try:
        rule = _find_rule(ast.parse(source))
        nodes = list(ast.walk(rule))
    except Exception:  # noqa: BLE001 - as in in_words
        first = next((line.strip() for line in source.splitlines() if line.strip()), "")
        return f"The rule cannot be put in words; it begins with `{first[:80]}`."
    texts = {each.value for each in nodes if isinstance(each, ast.Constant) and isinstance(each.value, str)}
    names = {each.attr for each in nodes if isinstance(each, ast.Attribute)}
    reads = [f"the {meaning}" for name, meaning in MEANINGS.items() if name in names]
    if "sensitivity" in names:
        reads.append("the sensitivity to formats")
    types = [name for name in LAYER_TYPES if name in texts]
    if types:
        reads.append(f"whether a layer is of type {listed(types, 'or')}")
    count = sum(isinstance(each, ast.stmt) for each in nodes) - 1
    sentences = [f"The rule is a program of {count} statement{'' if count == 1 else 's'}."]
    if reads:
        sentences.append(f"It reads {listed(reads, 'and')}.")
    formats = [each.name for each in known_formats() if each.name in texts]
    if formats:
        sentences.append(f"It names the formats {listed(formats, 'and')}.")
    returns = [each.value for each in nodes if isinstance(each, ast.Return) and each.value is not None]
    if returns:
        sentences.append(f"It returns {quoted(returns[-1])}.")
    return " ".join(sentences)
