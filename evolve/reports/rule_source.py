"""Takes a rule out of its source: its function and all that it needs, without this package.

Where possible the text stays as it was written. What goes is what only this package understands:
the decorator that declares the rule, annotations with our types, and whatever the rule does not need.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from evolve.errors import PluginError

_OWN_PACKAGE = __name__.partition(".")[0]
_CURE = "Copy what the rule needs into the plugin."

#: (first character, end, replacement) in a source.
_Edit = tuple[int, int, str]


@dataclass(frozen=True)
class RuleSource:
    """A rule that can stand in another file.

    Attributes:
        name: The function's name there.
        text: The function and all the definitions it needs, in their order.
        imports: Import statements of one name each, to stand above it.
    """

    name: str
    text: str
    imports: tuple[str, ...]

    @property
    def tree(self) -> ast.Module:
        """The syntax tree of the text."""
        return ast.parse(self.text)


def rule_source(source: str, file: str, taken: Collection[str]) -> RuleSource:
    """Take the rule ``allocate`` out of its source.

    Args:
        source: Python that defines ``allocate(model, p)``.
        file: Where it comes from, for messages.
        taken: Names that the file it is going to uses; ``allocate`` is one of them.

    Raises:
        PluginError: The rule cannot do without this package.
    """
    own = frozenset(_imported_from_own_package(ast.parse(source), file))
    source = _edited(source, list(_removals(source, own)))
    defined = {name for each in ast.parse(source).body if not _is_import(each) for name in _bound_by(each)}
    fresh = _fresh_names(source, {name for name in defined if name in taken})
    source = _edited(source, list(_renamings(source, fresh)))
    needed = _needed(ast.parse(source), fresh["allocate"], own, file)
    imports = tuple(sorted({line for each in needed if _is_import(each) for line in _import_lines(each)}))
    text = _joined(source, [each for each in needed if not _is_import(each)])
    rule = RuleSource(fresh["allocate"], text, imports)
    wanted = {each.id for each in ast.walk(rule.tree) if isinstance(each, ast.Name)}
    kept = tuple(each for each in imports if each.split()[-1].partition(".")[0] in {*wanted, "*"})
    clashing = [each for each in kept if each.split()[-1] in taken]
    if clashing:
        raise _cannot_stand_alone(file, None, clashing[0], "Import it under another name.")
    return RuleSource(rule.name, rule.text, kept)


def _cannot_stand_alone(file: str, line: int | None, found: str, cure: str = _CURE) -> PluginError:
    place = None if line is None else f"line {line}"
    return PluginError("the rule cannot stand alone", file=file, place=place, found=found, cure=cure)


def _is_import(node: ast.AST) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def _is_own(module: str | None) -> bool:
    return (module or "").partition(".")[0] == _OWN_PACKAGE


def _imported_from_own_package(tree: ast.Module, file: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and _is_own(node.module):
            if any(each.name == "*" for each in node.names):
                cure = "Import what it needs by name."
                raise _cannot_stand_alone(file, node.lineno, ast.unparse(node), cure)
            yield from (each.asname or each.name for each in node.names)
        elif isinstance(node, ast.Import):
            for each in node.names:
                if _is_own(each.name):
                    yield each.asname or _OWN_PACKAGE


def _read_by(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def _bound_by(statement: ast.stmt) -> set[str]:
    """Return the names that a statement of a module gives a value."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    names = set()
    for each in ast.walk(statement):
        if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store):
            names.add(each.id)
        elif isinstance(each, ast.FunctionDef | ast.ClassDef):
            names.add(each.name)
        elif isinstance(each, ast.alias):
            names.add((each.asname or each.name).partition(".")[0])
    return names


def _needed(tree: ast.Module, rule: str, own: Collection[str], file: str) -> list[ast.stmt]:
    """Return the statements of a module that its rule needs, in their order."""
    statements = [each for each in tree.body if not (_is_import(each) and _imports_own(each))]
    chosen: set[int] = set()
    wanted = [rule]
    for index, statement in enumerate(statements):
        reads = _read_by(statement)
        acts = not _bound_by(statement) and not isinstance(getattr(statement, "value", None), ast.Constant)
        if acts and not reads & {*own, "__name__"}:
            chosen.add(index)
            wanted += reads
    seen: set[str] = set()
    while wanted:
        name = wanted.pop()
        if name in seen:
            continue
        seen.add(name)
        for index, statement in enumerate(statements):
            if index not in chosen and name in _bound_by(statement):
                chosen.add(index)
                wanted += _read_by(statement)
    found = [statements[index] for index in sorted(chosen)]
    for statement in found:
        for node in ast.walk(statement):
            if (isinstance(node, ast.Name) and node.id in own) or (_is_import(node) and _imports_own(node)):
                raise _cannot_stand_alone(file, node.lineno, ast.unparse(node))
    return found


def _imports_own(node: ast.AST) -> bool:
    if isinstance(node, ast.ImportFrom):
        return _is_own(node.module) or node.module == "__future__"
    return isinstance(node, ast.Import) and any(_is_own(each.name) for each in node.names)


def _import_lines(node: ast.AST) -> list[str]:
    """Return an import as statements of one name each."""
    if isinstance(node, ast.Import):
        return [ast.unparse(ast.Import([each])) for each in node.names]
    assert isinstance(node, ast.ImportFrom)
    return [ast.unparse(ast.ImportFrom(node.module, [each], 0)) for each in node.names]


class _Offsets:
    """Turns the lines and columns of a source into places in its text."""

    def __init__(self, source: str) -> None:
        self._lines = source.splitlines(keepends=True)
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line))

    def of_character(self, line: int, column: int) -> int:
        return self._starts[line - 1] + column

    def of_byte(self, line: int, column: int) -> int:
        # Syntax trees count bytes of UTF-8.
        return self._starts[line - 1] + len(self._lines[line - 1].encode()[:column].decode())

    def start(self, node: ast.expr | ast.stmt | ast.arg) -> int:
        return self.of_byte(node.lineno, node.col_offset)

    def end(self, node: ast.expr | ast.stmt | ast.arg) -> int:
        assert node.end_lineno is not None and node.end_col_offset is not None
        return self.of_byte(node.end_lineno, node.end_col_offset)


def _edited(source: str, edits: list[_Edit]) -> str:
    for first, end, text in sorted(edits, reverse=True):
        source = source[:first] + text + source[end:]
    return source


def _removals(source: str, own: Collection[str]) -> Iterator[_Edit]:
    """Yield the edits that remove the rule's decorators and annotations of this package."""
    places = _Offsets(source)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.arg) and node.annotation and _read_by(node.annotation) & {*own}:
            name_end = places.start(node) + len(node.arg)
            yield name_end, places.end(node.annotation), ""
        elif isinstance(node, ast.AnnAssign) and node.value and _read_by(node.annotation) & {*own}:
            yield places.end(node.target), places.end(node.annotation), ""
        elif isinstance(node, ast.FunctionDef):
            if node.returns and _read_by(node.returns) & {*own}:
                arrow = source.rindex("->", 0, places.start(node.returns))
                yield len(source[:arrow].rstrip()), places.end(node.returns), ""
            for decorator in node.decorator_list:
                if node.name == "allocate" and _read_by(decorator) & {*own}:
                    at = source.rindex("@", 0, places.start(decorator))
                    after = source.find("\n", places.end(decorator)) + 1
                    yield at, after, ""


def _fresh_names(source: str, clashing: Collection[str]) -> dict[str, str]:
    """Return other names for some that are taken: names that occur nowhere in the source."""
    words = set(re.findall(r"\w+", source))
    fresh = {}
    for name in sorted(clashing):
        candidate = "rule" if name == "allocate" else f"{name}_of_rule"
        while candidate in words:
            candidate += "_"
        fresh[name] = candidate
    return fresh


def _renamings(source: str, fresh: dict[str, str]) -> Iterator[_Edit]:
    places = _Offsets(source)
    before = ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME and token.string in fresh and before != ".":
            first = places.of_character(*token.start)
            yield first, first + len(token.string), fresh[token.string]
        before = token.string


def _joined(source: str, statements: list[ast.stmt]) -> str:
    """Return statements as they are written, with the comments that belong to them."""
    lines = source.splitlines()
    text = ""
    for statement in statements:
        decorators: list[ast.expr] = getattr(statement, "decorator_list", [])
        first = min([statement.lineno, *(each.lineno for each in decorators)]) - 1
        while first > 0 and lines[first - 1].startswith("#"):
            first -= 1
        block = "\n".join(line.rstrip() for line in lines[first : statement.end_lineno])
        spacious = isinstance(statement, ast.FunctionDef | ast.ClassDef) or text.endswith("\n\n")
        text = text.rstrip("\n") + ("\n\n\n" if spacious else "\n") + block
        text += "\n\n" if isinstance(statement, ast.FunctionDef | ast.ClassDef) else ""
    return text.strip("\n")
