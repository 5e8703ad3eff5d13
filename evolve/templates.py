"""Code templates: the forms that rules are written in.

A template is jinja2 text that renders to the source of ``allocate(model, p)``. Its slots
are typed; what a slot holds is an expression (see `evolve.expressions`), a format, or a
list of clauses, each a mask with the format it gives. A rule written as a plain Python
function is a template without slots.

A candidate holds its slots as text. For variation, `Template.read` gives them as trees
and `Template.write` makes a candidate of the trees again, in canonical form: writing what
was read changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import Any, Literal, get_args

import jinja2

from evolve.candidates import Candidate, SlotContent
from evolve.errors import TemplateError
from evolve.expressions import OPERATORS, Node, is_format_name, parse, required_level, to_text
from evolve.number_ranges import name_numbers
from evolve.parameters import Parameter, Sweep
from evolve.python_source import line_in
from evolve.simplification import simplify

#: Candidates and structures whose trees and sources are kept at hand.
_CACHED = 20_000

SlotType = Literal["mask", "score", "table", "format", "clauses"]
#: A slot's content as trees: an expression, a format, or clauses (mask, format).
SlotTree = Node | str | tuple[tuple[Node, str], ...]


@dataclass(frozen=True)
class Slot:
    """A typed hole of a code template.

    Attributes:
        name: What the body calls it.
        type: What it holds.
        reads: Scores that the body computes before it, which its expression may read by name.
    """

    name: str
    type: SlotType
    reads: tuple[str, ...] = ()


@dataclass(frozen=True)
class Genome:
    """A candidate taken apart for variation.

    Attributes:
        template: The template's name.
        slots: (name, content as trees) in the template's order.
        parameters: The template's own parameters (those not in a slot), their values as defaults.
    """

    template: str
    slots: tuple[tuple[str, SlotTree], ...]
    parameters: tuple[Parameter, ...]


def expressions_of(tree: SlotTree) -> Iterator[Node]:
    """Yield the expressions a slot holds, in order."""
    if isinstance(tree, Node):
        yield tree
    elif isinstance(tree, tuple):
        for mask, _ in tree:
            yield mask


def formats_of(tree: SlotTree) -> Iterator[str]:
    """Yield the formats a slot names, in order."""
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, tuple):
        for _, name in tree:
            yield name


def _with_expressions(tree: SlotTree, fresh: Iterator[Node]) -> SlotTree:
    if isinstance(tree, Node):
        return next(fresh)
    if isinstance(tree, tuple):
        return tuple((next(fresh), name) for _, name in tree)
    return tree


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - the output is Python, not HTML
    )


@cache
def _compiled(body: str) -> jinja2.Template:
    return _environment().from_string(body)


def mask_name(mask: Node) -> str:
    """Name a mask after what it says: ``layernorm``, ``high_sensitivity_fp16``, ``any_of_2``."""
    match mask.operation:
        case "is_type":
            assert isinstance(mask.value, tuple)
            return (
                "_or_".join(each.lower() for each in mask.value) if len(mask.value) <= 2 else "chosen_types"
            )
        case "not":
            inner = mask_name(mask.children[0])
            return f"not_{inner}"
        case "and":
            return "both"
        case "or":
            return "either"
    quantity = mask.children[0]
    adjective = {"less": "low", "greater": "high"}[mask.operation]
    if quantity.operation == "signal":
        return f"{adjective}_{quantity.value}"
    if quantity.operation == "sensitivity":
        return f"{adjective}_sensitivity_{str(quantity.value).lower()}"
    return f"{adjective}_{quantity.operation}"


def _clauses_for_rendering(clauses: tuple[tuple[Node, str], ...]) -> list[dict[str, str]]:
    names: set[str] = set()
    rendered = []
    for mask, format_name in clauses:
        label = name = mask_name(mask)
        count = 1
        while name in names:
            count += 1
            name = f"{label}_{count}"
        names.add(name)
        rendered.append({"name": name, "mask": _marked(mask), "format": format_name})
    return rendered


def _marked(node: Node) -> str:
    """Print an expression, between marks if its surroundings might take it apart."""
    return f"\0{to_text(node)}\1" if node.operation in OPERATORS else to_text(node)


def _with_parentheses(rendered: str) -> str:
    """Replace the marks by parentheses, or by nothing where an expression stands by itself."""

    def replaced(match: re.Match[str]) -> str:
        before, text, after = match[1] or "", match[2], match[3]
        alone = before and after is not None
        return f"{before}{text}{after}" if alone else f"{before}({text}){after or ''}"

    return re.sub(
        r"((?<![=<>!])= |return |\(|, )?\x00(.*?)\x01($|\)|,)?", replaced, rendered, flags=re.MULTILINE
    )


@dataclass(frozen=True)
class Template:
    """A form of rules.

    Attributes:
        name: Its name in candidates.
        body: The jinja2 text, or the Python text of a plugin's module if there are no slots to fill.
        slots: Its typed holes.
        parameters: Parameters that the body itself reads.
        file: Where it comes from, for messages.
        kind: ``code`` for a jinja2 template, ``function`` for a Python plugin.
        sweep: The parameter that trades bits for loss; None where none does.
    """

    name: str
    body: str
    slots: tuple[Slot, ...] = ()
    parameters: tuple[Parameter, ...] = ()
    file: str = ""
    kind: Literal["code", "function"] = "code"
    sweep: Sweep | None = None

    @cached_property
    def own_parameters(self) -> Mapping[str, Parameter]:
        """The parameters that the body itself reads, by name."""
        return {each.name: each for each in self.parameters}

    def read(self, candidate: Candidate) -> Genome:
        """Take a candidate apart.

        Raises:
            TemplateError: A slot is missing or unknown, or holds what its type does not allow.
        """
        return _read(self, candidate)

    def read_slot(self, slot: Slot, content: SlotContent, values: Mapping[str, float]) -> SlotTree:
        """Read what a slot holds as trees.

        Raises:
            TemplateError: It is not what the slot's type allows.
        """

        def fail(expected: str) -> TemplateError:
            return TemplateError(
                "bad slot", file=self.file, field=f"slots.{slot.name}", expected=expected, found=content
            )

        if slot.type == "clauses":
            if isinstance(content, str):
                raise fail("a list of [mask, format] pairs")
            if not all(is_format_name(name) for _, name in content):
                raise fail("format names of letters, digits and underscores")
            return tuple((parse(mask, "mask", values, slot.reads), name) for mask, name in content)
        if not isinstance(content, str):
            raise fail(f"the text of a {slot.type}")
        if slot.type == "format":
            if not is_format_name(content):
                raise fail("a format name of letters, digits and underscores")
            return content
        return parse(content, slot.type, values, slot.reads)

    def write(self, genome: Genome) -> Candidate:
        """Make a candidate in canonical form: expressions simplified, numbers named as they are read."""
        named, parameters = self._named([node for _, tree in genome.slots for node in expressions_of(tree)])
        fresh = iter(named)
        slots = tuple((name, self._write_slot(_with_expressions(tree, fresh))) for name, tree in genome.slots)
        everything = (*genome.parameters, *parameters)
        return Candidate(self.name, slots, tuple((each.name, each.default) for each in everything))

    def _named(self, nodes: list[Node]) -> tuple[list[Node], list[Parameter]]:
        """Simplify expressions and name their numbers, until neither changes anything."""
        named, parameters = name_numbers(nodes, self.own_parameters)
        while True:
            # Bringing a number within its bounds can let it fold, and folding moves bounds.
            again, parameters = name_numbers([simplify(node) for node in named], self.own_parameters)
            if again == named:
                return named, parameters
            named = again

    @staticmethod
    def _write_slot(tree: SlotTree) -> SlotContent:
        if isinstance(tree, str):
            return tree
        if isinstance(tree, Node):
            return to_text(tree)
        return tuple((to_text(mask), name) for mask, name in tree)

    def parameters_of(self, candidate: Candidate) -> tuple[Parameter, ...]:
        """Return every parameter of a candidate with its bounds, the values as defaults."""
        return _parameters_of(self, candidate)

    def sweep_of(self, candidate: Candidate) -> Parameter | None:
        """Return the candidate's parameter that trades bits for loss, with the bounds it is swept over.

        None where the template names none, or the candidate's slots do not hold it.
        """
        if self.sweep is None:
            return None
        for each in self.parameters_of(candidate):
            if each.name == self.sweep.parameter:
                return self.sweep.of(each)
        return None

    def source(self, candidate: Candidate) -> str:
        """Render a candidate to the source of ``allocate(model, p)``.

        Raises:
            TemplateError: The template does not render, or not to Python.
        """
        if self.kind == "function":
            return self.body
        return _rendered(self, candidate.slots, tuple(name for name, _ in candidate.parameters))

    def level(self, candidate: Candidate) -> int:
        """Return the lowest information level (an index) the candidate's slots can be read at."""
        nodes = [node for _, tree in self.read(candidate).slots for node in expressions_of(tree)]
        return max((required_level(node) for node in nodes), default=0)


@lru_cache(maxsize=_CACHED)
def _read(template: Template, candidate: Candidate) -> Genome:
    values = dict(candidate.parameters)
    contents = dict(candidate.slots)
    if set(contents) != {slot.name for slot in template.slots}:
        raise TemplateError(
            f"slots do not fit template {template.name}",
            file=template.file,
            field="slots",
            expected=", ".join(slot.name for slot in template.slots) or "none",
            found=", ".join(contents),
        )
    slots = tuple(
        (slot.name, template.read_slot(slot, contents[slot.name], values)) for slot in template.slots
    )
    own = tuple(each.with_default(values.get(each.name, each.default)) for each in template.parameters)
    return Genome(template.name, slots, own)


@lru_cache(maxsize=_CACHED)
def _parameters_of(template: Template, candidate: Candidate) -> tuple[Parameter, ...]:
    genome = template.read(candidate)
    nodes = [node for _, tree in genome.slots for node in expressions_of(tree)]
    return (*genome.parameters, *name_numbers(nodes, template.own_parameters)[1])


@lru_cache(maxsize=_CACHED)
def _rendered(template: Template, slots: tuple[tuple[str, SlotContent], ...], names: tuple[str, ...]) -> str:
    """Render slots; the parameters' values do not matter to the source."""
    candidate = Candidate(template.name, slots, tuple((name, 1.0) for name in names))
    context: dict[str, Any] = {}
    for name, tree in template.read(candidate).slots:
        if isinstance(tree, str):
            context[name] = tree
        elif isinstance(tree, Node):
            context[name] = _marked(tree)
        else:
            context[name] = _clauses_for_rendering(tree)
    try:
        text = _compiled(template.body).render(context)
    except Exception as error:  # a template can compute, and fail in any way
        # jinja2 puts the template's own lines into the traceback, under this name.
        line = getattr(error, "lineno", None) or line_in(error, "<template>")
        raise TemplateError(
            f"the template does not render: {type(error).__name__}: {error}",
            file=template.file,
            place=f"line {line}" if line else None,
        ) from error
    return re.sub(r"\n{3,}", "\n\n", _with_parentheses(text)).strip() + "\n"


def check_slot_type(name: str) -> SlotType:
    """Return the slot type of that name.

    Raises:
        TemplateError: There is no such type.
    """
    types: tuple[SlotType, ...] = get_args(SlotType)
    for each in types:
        if each == name:
            return each
    raise TemplateError(
        "unknown slot type", field="type", expected=f"one of {', '.join(get_args(SlotType))}", found=name
    )
