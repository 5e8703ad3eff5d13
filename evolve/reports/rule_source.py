"""Takes a rule out of its source: the function and all that it needs, without this package.

The text stays as it was written, but for what only this package understands (the decorator that
declares the rule, annotations with our types), what the rule does not need, and names that the
file it is going to uses already.
"""

from __future__ import annotations

import ast
import io
import symtable
import tokenize
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from evolve.errors import PluginError

_OWN_PACKAGE = __name__.partition(".")[0]
_Function = ast.FunctionDef | ast.AsyncFunctionDef
#: Places of the first character and the end, and what is to stand there.
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


def rule_source(source: str, file: str, taken: Mapping[str, str]) -> RuleSource:
    """Take the rule ``allocate`` out of its source.

    Args:
        source: Python that defines ``allocate(model, p)``.
        file: Where it comes from, for messages.
        taken: Names that the file it is going to uses, ``allocate`` among them, each with the
            import statement that brings it, if any.

    Raises:
        PluginError: The rule cannot do without this package.
    """
    own = set(_names_of_own_package(source, file))
    source = _edited(source, list(_removals(source, own)))
    fresh = _fresh_names(source, taken)
    source = _edited(source, list(_renamings(source, fresh)))
    needed = _needed(ast.parse(source).body, fresh["allocate"], own)
    _check_stands_alone(needed, own, file)
    text = _joined(source, [each for each in needed if not _is_import(each)])
    read = _read_by(ast.parse(text)) | {"*"}
    single = {name: line for each in needed for line, name in _imports_in(each) if name in read}
    for name, line in single.items():
        if taken.get(name, line) != line:
            raise _cannot_stand_alone(file, None, line, "Import it under another name.")
    return RuleSource(fresh["allocate"], text, tuple(single.values()))


def _cannot_stand_alone(file: str, line: int | None, found: str, cure: str) -> PluginError:
    place = None if line is None else f"line {line}"
    return PluginError("the rule cannot stand alone", file=file, place=place, found=found, cure=cure)


def _is_import(node: ast.AST) -> bool:
    return isinstance(node, ast.Import | ast.ImportFrom)


def _is_own(module: str | None) -> bool:
    return (module or "").partition(".")[0] == _OWN_PACKAGE


def _imports_in(statement: ast.stmt) -> Iterator[tuple[str, str]]:
    """Yield the imports of a statement, each as a statement of its own with the name it gives."""
    if isinstance(statement, ast.Import):
        for each in statement.names:
            yield ast.unparse(ast.Import([each])), each.asname or each.name.partition(".")[0]
    elif isinstance(statement, ast.ImportFrom):
        for each in statement.names:
            yield ast.unparse(ast.ImportFrom(statement.module, [each], 0)), each.asname or each.name


def _names_of_own_package(source: str, file: str) -> Iterator[str]:
    """Yield the names that a module imports from this package."""
    for statement in ast.parse(source).body:
        inside = () if isinstance(statement, _Function | ast.ClassDef) else ast.walk(statement)
        for node in inside:
            if isinstance(node, ast.ImportFrom) and _is_own(node.module):
                if any(each.name == "*" for each in node.names):
                    cure = "Import what it needs by name."
                    raise _cannot_stand_alone(file, node.lineno, ast.unparse(node), cure)
                yield from (each.asname or each.name for each in node.names)
            elif isinstance(node, ast.Import):
                yield from (each.asname or _OWN_PACKAGE for each in node.names if _is_own(each.name))


def _read_by(node: ast.AST) -> set[str]:
    """Return the names of the module that some code reads."""
    names: set[str] = set()
    tables = [symtable.symtable(ast.unparse(node), "<rule>", "exec")]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        for symbol in table.get_symbols():
            if symbol.is_global() or (table.get_type() == "module" and symbol.is_referenced()):
                names.add(symbol.get_name())
    return names


def given_by(statement: ast.stmt) -> set[str]:
    """Return the names that a statement of a module gives a value."""
    if isinstance(statement, _Function | ast.ClassDef):
        return {statement.name}
    names = set()
    for each in ast.walk(statement):
        if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store):
            names.add(each.id)
        elif isinstance(each, _Function | ast.ClassDef):
            names.add(each.name)
        elif isinstance(each, ast.Import | ast.ImportFrom):
            names |= {name for _, name in _imports_in(each)}
    return names


def _needed(statements: list[ast.stmt], rule: str, own: Collection[str]) -> list[ast.stmt]:
    """Return the statements of a module that its rule needs, in their order.

    Besides definitions these are statements that only act, like ``TABLE.update(...)``.
    """
    chosen: dict[int, ast.stmt] = {}
    wanted = {rule, "*"}
    for index, each in enumerate(statements):
        is_text = isinstance(each, ast.Expr) and isinstance(each.value, ast.Constant)
        reads = _read_by(each)
        if not (given_by(each) or is_text or reads & {*own, "__name__"}):
            chosen[index] = each
            wanted |= reads
    size = -1
    while len(chosen) > size:
        size = len(chosen)
        for index, each in enumerate(statements):
            if index not in chosen and given_by(each) & wanted and not _is_own_import(each):
                chosen[index] = each
                wanted |= _read_by(each)
    return [chosen[index] for index in sorted(chosen)]


def _is_own_import(node: ast.AST) -> bool:
    if isinstance(node, ast.ImportFrom):
        return _is_own(node.module) or node.module == "__future__"
    return isinstance(node, ast.Import) and any(_is_own(each.name) for each in node.names)


def _check_stands_alone(statements: list[ast.stmt], own: set[str], file: str) -> None:
    cure = f"Copy what the rule needs from {_OWN_PACKAGE} into the plugin."
    for statement in statements:
        reads = own & _read_by(statement)
        for node in ast.walk(statement):
            found = _is_own_import(node) or (isinstance(node, ast.Name) and node.id in reads)
            if found and isinstance(node, ast.stmt | ast.expr):
                raise _cannot_stand_alone(file, node.lineno, ast.unparse(node), cure)


class _Places:
    """Turns the lines and columns of a source into places in its text."""

    def __init__(self, source: str) -> None:
        self._lines = io.StringIO(source).readlines()
        self._starts = [0]
        for line in self._lines:
            self._starts.append(self._starts[-1] + len(line))

    def of_token(self, token: tokenize.TokenInfo) -> int:
        return self._starts[token.start[0] - 1] + token.start[1]

    def start(self, node: ast.expr) -> int:
        return self._of(node.lineno, node.col_offset)

    def end(self, node: ast.expr) -> int:
        return self._of(node.end_lineno or 0, node.end_col_offset or 0)

    def _of(self, line: int, column: int) -> int:
        # Syntax trees count bytes of UTF-8.
        return self._starts[line - 1] + len(self._lines[line - 1].encode()[:column].decode())


def _edited(source: str, edits: list[_Edit]) -> str:
    for first, end, text in sorted(edits, reverse=True):
        source = source[:first] + text + source[end:]
    return source


def _removals(source: str, own: set[str]) -> Iterator[_Edit]:
    """Yield the edits that remove the rule's decorators and the annotations of this package."""
    places = _Places(source)
    for node in ast.walk(ast.parse(source)):
        for field, mark in (("annotation", ":"), ("returns", "->")):
            annotation = getattr(node, field, None)
            bare = isinstance(node, ast.AnnAssign) and node.value is None
            if annotation is not None and not bare and own & _read_by(annotation):
                first = source.rindex(mark, 0, places.start(annotation))
                yield len(source[:first].rstrip()), places.end(annotation), ""
        if isinstance(node, ast.FunctionDef) and node.name == "allocate":
            for decorator in node.decorator_list:
                if own & _read_by(decorator):
                    first = source.rindex("@", 0, places.start(decorator))
                    yield first, source.find("\n", places.end(decorator)) + 1, ""


def _names_in(source: str) -> Iterator[tokenize.TokenInfo]:
    """Yield the names in a source that are not attributes of something."""
    before = ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.NAME and before != ".":
            yield token
        before = token.string


def _fresh_names(source: str, taken: Collection[str]) -> dict[str, str]:
    """Return the module's names that are taken, each with one that occurs nowhere in it."""
    words = {token.string for token in _names_in(source)} | {*taken}
    statements = [each for each in ast.parse(source).body if not _is_import(each)]
    fresh = {}
    for name in sorted({name for each in statements for name in given_by(each)} & {*taken}):
        free = "rule" if name == "allocate" else f"{name}_of_rule"
        while free in words:
            free += "_"
        fresh[name] = free
    return fresh


def _renamings(source: str, fresh: Mapping[str, str]) -> Iterator[_Edit]:
    places = _Places(source)
    for token in _names_in(source):
        if token.string in fresh:
            first = places.of_token(token)
            yield first, first + len(token.string), fresh[token.string]


def _joined(source: str, statements: list[ast.stmt]) -> str:
    """Return statements as they are written, with the comments right above them."""
    lines = source.split("\n")
    text, done, apart = "", 0, False
    for statement in statements:
        decorators: list[ast.expr] = getattr(statement, "decorator_list", [])
        first = min([statement.lineno, *(each.lineno for each in decorators)]) - 1
        if first < done:
            continue  # on the last one's line, after a semicolon
        while first > done and lines[first - 1].startswith("#"):
            first -= 1
        done = statement.end_lineno or 0
        stands_apart = isinstance(statement, _Function | ast.ClassDef)
        text += ("\n\n\n" if stands_apart or apart else "\n") + "\n".join(lines[first:done])
        apart = stands_apart
    return text.strip("\n")
