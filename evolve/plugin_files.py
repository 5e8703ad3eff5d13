"""Reads one plugin file.

``NAME.py`` is a Python function declared by `evolve.heuristics.heuristic`. ``NAME.py.j2`` is a
code template with typed slots, headed by a jinja2 comment in TOML; it brings its own body, or
names a general template and only fills its slots.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Any

from evolve.candidates import Candidate, SlotContent
from evolve.errors import InputError, PluginError, TemplateError
from evolve.heuristics import ROLES, Declaration, Role
from evolve.parameters import Parameter, Sweep
from evolve.python_source import compile_rule
from evolve.templates import Slot, Template, check_slot_type, expressions_of

_CODE_TEMPLATES = Path(__file__).resolve().parent / "code_templates"
_HEADER = re.compile(r"\A\s*\{#-?(.*?)-?#\}\n?", re.DOTALL)
_KEYS = {
    "": ("role", "source", "summary", "template", "sweep", "slots", "parameters"),
    "sweep": ("parameter", "low", "high", "loss", "weight", "along", "price"),
    "slot": ("type", "default", "reads"),
    "parameter": ("default", "low", "high", "scale"),
}


@dataclass(frozen=True)
class Heuristic:
    """A seed heuristic.

    Attributes:
        name: The file's name without its ending.
        role: ``baseline``, ``published``, ``discovered`` or ``user``.
        source: Where the rule comes from.
        summary: One sentence.
        file: The plugin.
        candidate: The rule as a candidate.
        template: Its code template.
    """

    name: str
    role: Role
    source: str
    summary: str
    file: str
    candidate: Candidate
    template: Template


def plugin_name(file: Path) -> str:
    """Return a plugin's name: its file's without ``.py`` or ``.py.j2``."""
    return file.name.removesuffix(".j2").removesuffix(".py")


@cache
def general_templates() -> Mapping[str, Template]:
    """Return the code templates of this package, by name."""
    files = sorted(_CODE_TEMPLATES.glob("*.py.j2"))
    texts = {file: file.read_text(encoding="utf-8") for file in files}
    return {plugin_name(file): _load_template(file, text, {}).template for file, text in texts.items()}


def plugin_text(file: Path) -> str:
    """Return a plugin's content.

    Raises:
        PluginError: It cannot be read, or its name or that of its file cannot be a plugin's.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PluginError(f"cannot be read: {error}", file=file) from error
    name = plugin_name(file)
    if not name.isidentifier():
        raise PluginError("bad name", file=file, expected="a Python identifier before .py", found=name)
    if name in general_templates():
        raise PluginError("this name belongs to a general template", file=file, found=name)
    return text


def load_plugin(file: Path, templates: Mapping[str, Template] | None = None) -> Heuristic:
    """Load one heuristic.

    Args:
        file: The plugin.
        templates: The code templates that it may fill; the general ones where none are given.

    Raises:
        PluginError: It cannot be read or does not keep the contract; names file and line.
    """
    text = plugin_text(file)
    if file.name.endswith(".j2"):
        return _load_template(file, text, general_templates() if templates is None else templates)
    return _load_function(file, plugin_name(file), text)


def _load_function(file: Path, name: str, text: str) -> Heuristic:
    rule = compile_rule(text, str(file))
    declaration = getattr(rule, "declaration", None)
    if not isinstance(declaration, Declaration):
        raise PluginError(
            "allocate is not declared",
            file=file,
            place=f"line {rule.__code__.co_firstlineno}" if isinstance(rule, FunctionType) else None,
            expected="@heuristic(role=..., source=..., parameters=[...]) above it",
            cure="'evolve heuristics new NAME' writes a working plugin to start from.",
        )
    template = Template(name, text, (), declaration.parameters, str(file), "function", declaration.sweep)
    candidate = Candidate(name, (), tuple((each.name, each.default) for each in declaration.parameters))
    summary = (rule.__doc__ or "").strip().split("\n")[0]
    return Heuristic(name, declaration.role, declaration.source, summary, str(file), candidate, template)


def _place_of(text: str, error: InputError) -> str:
    """Find the line of a header that an error is about."""
    patterns = []
    if isinstance(error.found, str):
        # TOML strings in double quotes escape those inside.
        forms = [re.escape(form) for form in (error.found, error.found.replace('"', '\\"'))]
        patterns += [rf"[\"']{form}[\"']" for form in forms]
        patterns += [rf"(?<!\w){form}(?!\w)" for form in forms]
    for name in (error.place, error.field):
        if name:
            # As a key, ``name =`` or ``[table.name]``.
            patterns.append(rf"(?:^|[\s.{{,\[]){re.escape(name.split('.')[-1])}\s*[=\]]")
    for pattern in patterns:
        match = re.search(pattern, text, re.MULTILINE)
        if match:
            return f"line {text.count(chr(10), 0, match.end()) + 1}"
    return "line 1"


def _load_template(file: Path, text: str, templates: Mapping[str, Template]) -> Heuristic:
    match = _HEADER.match(text)
    if match is None:
        raise TemplateError("has no header", file=file, place="line 1", expected="{# TOML #} at the top")
    try:
        header = tomllib.loads(match[1])
    except tomllib.TOMLDecodeError as error:
        first = text[: match.start(1)].count("\n")
        found = re.search(r"line (\d+)", str(error))
        line = first + int(found[1]) if found else text[: match.end(1)].count("\n")
        raise TemplateError(f"the header is not TOML: {error}", file=file, place=f"line {line}") from error
    # Empty lines stand for the header, so that the body's lines keep their numbers; rendering strips them.
    body = "\n" * text[: match.end()].count("\n") + text[match.end() :]
    try:
        return _template_from(header, body, file, templates)
    except InputError as error:
        if error.file and error.place:
            raise
        raise TemplateError(
            error.problem,
            file=file,
            place=_place_of(text, error),
            field=", ".join(each for each in (error.place, error.field) if each),
            expected=error.expected,
            found=error.found,
            cure=error.cure,
        ) from error


def _check_keys(table: object, kind: str, where: str) -> dict[str, Any]:
    if not isinstance(table, dict):
        raise TemplateError("bad header", field=where, expected="a table", found=table)
    for key in table:
        if key not in _KEYS[kind]:
            raise TemplateError(
                "unknown key", field=where or "header", expected=f"one of {', '.join(_KEYS[kind])}", found=key
            )
    return table


def read_sweep(described: object, parameters: Mapping[str, object], slots: Sequence[Slot] = ()) -> Sweep:
    """Return what a header says of the parameter that trades bits for loss.

    Args:
        described: Its name, or a table of name, bounds, and what else `Sweep` holds.
        parameters: The header's parameters, by name.
        slots: The header's slots.

    Raises:
        TemplateError: There is no such parameter or slot, or the bounds are none.
    """
    full = {"parameter": described} if isinstance(described, str) else described
    table = _check_keys(full, "sweep", "sweep")
    name = table.get("parameter")
    if not isinstance(name, str) or name not in parameters:
        words = f"one of {', '.join(parameters)}" if parameters else "a template with parameters"
        raise TemplateError("no such parameter", field="sweep", expected=words, found=name)
    if ("loss" in table) != ("weight" in table):
        raise TemplateError("bad sweep", field="sweep", expected="both loss and weight", found=described)
    for key, kind in (("loss", "table"), ("weight", "score")):
        fitting = [each.name for each in slots if each.type == kind and not each.reads]
        if key in table and table[key] not in fitting:
            words = f"a slot that holds a {kind} and reads nothing: {', '.join(fitting) or 'there is none'}"
            raise TemplateError("no such slot", field=f"sweep.{key}", expected=words, found=table[key])
    bounds = [table.get(key) for key in ("low", "high")]
    numbers = [each for each in bounds if isinstance(each, int | float) and not isinstance(each, bool)]
    if len(numbers) < sum(each is not None for each in bounds) or numbers != sorted(set(numbers)):
        raise TemplateError("bad bounds", field="sweep", expected="numbers, low < high", found=described)
    low, high = bounds
    along = _read_along(table, parameters)
    priced = [each.name for each in slots if each.type == "score" and set(each.reads) <= {"spent", "lost"}]
    if "price" in table and (table["price"] not in priced or "loss" not in table or len(along) != 1):
        words = "a slot that holds a score, beside loss, weight and one parameter along"
        raise TemplateError("no such slot", field="sweep.price", expected=words, found=table["price"])
    return Sweep(
        str(name), low, high, table.get("loss", ""), table.get("weight", ""), along, table.get("price", "")
    )


def _read_along(table: Mapping[str, Any], parameters: Mapping[str, object]) -> tuple[str, ...]:
    """Return which parameters change by the same factor as the one that is swept."""
    along = table.get("along", [])
    if not isinstance(along, list) or not all(isinstance(each, str) and each in parameters for each in along):
        words = f"a list of some of {', '.join(parameters)}"
        raise TemplateError("no such parameters", field="sweep.along", expected=words, found=along)
    for name in (table["parameter"], *along) if along else ():
        described = parameters[name]
        if not isinstance(described, dict) or described.get("scale") != "log":
            words = "parameters on a log scale, which a factor can change together"
            raise TemplateError("bad parameter", field="sweep.along", expected=words, found=name)
    return tuple(along)


def _own_body(header: dict[str, Any], body: str, file: Path) -> tuple[Template, dict[str, Any]]:
    """Return the template a plugin brings itself, and the defaults of its slots."""
    slots, defaults = [], {}
    for name, described in header.get("slots", {}).items():
        table = _check_keys(described, "slot", f"slots.{name}")
        if "type" not in table or "default" not in table:
            raise TemplateError("bad slot", field=f"slots.{name}", expected="type and default", found=table)
        if not name.isidentifier():
            raise TemplateError("bad slot", field=f"slots.{name}", expected="a Python identifier", found=name)
        reads = table.get("reads", [])
        if not isinstance(reads, list) or not all(
            isinstance(each, str) and each.isidentifier() for each in reads
        ):
            raise TemplateError(
                "bad slot", field=f"slots.{name}.reads", expected="a list of names", found=reads
            )
        slots.append(Slot(name, check_slot_type(table["type"]), tuple(reads)))
        defaults[name] = table["default"]
    own = []
    for name, described in header.get("parameters", {}).items():
        table = _check_keys(described, "parameter", f"parameters.{name}")
        if "low" in table or "high" in table:
            try:
                own.append(Parameter(name=name, **table))
            except TypeError:
                raise TemplateError(
                    "bad parameter", field=f"parameters.{name}", expected="default, low, high", found=table
                ) from None
            if not re.search(rf"\bp\.{name}\b", body):
                raise TemplateError(
                    "the body does not read this parameter",
                    field=f"parameters.{name}",
                    cure="A number in a slot takes no bounds: they follow from what it is compared with.",
                )
    sweep = read_sweep(header["sweep"], header.get("parameters", {}), slots) if "sweep" in header else None
    return Template(plugin_name(file), body, tuple(slots), tuple(own), str(file), sweep=sweep), defaults


def _template_from(
    header: dict[str, Any], body: str, file: Path, templates: Mapping[str, Template]
) -> Heuristic:
    name = plugin_name(file)
    _check_keys(header, "", "")
    role = header.get("role", "user")
    if role not in ROLES:
        raise TemplateError("bad header", field="role", expected=f"one of {', '.join(ROLES)}", found=role)
    for key in ("source", "summary"):
        if not isinstance(header.get(key, ""), str):
            raise TemplateError("bad header", field=key, expected="a text", found=header[key])
    for key in ("slots", "parameters"):
        if not isinstance(header.get(key, {}), dict):
            raise TemplateError("bad header", field=key, expected=f"a table [{key}]", found=header[key])
    if "template" in header:
        template = templates.get(str(header["template"]))
        if template is None or not template.slots:
            known = ", ".join(each.name for each in templates.values() if each.slots)
            raise TemplateError(
                "unknown template", field="template", expected=f"one of {known}", found=header["template"]
            )
        if body.strip():
            raise TemplateError(
                "has both a template and a body",
                field="template",
                expected="one of them",
                found=template.name,
            )
        if "sweep" in header:
            words = f"what template {template.name} says"
            raise TemplateError("not for a rule to say", field="sweep", expected=words, found=header["sweep"])
        contents = header.get("slots", {})
    else:
        template, contents = _own_body(header, body, file)
    values = _parameter_values(header)
    values = {each.name: each.default for each in template.parameters} | values
    slots = tuple((slot.name, _content(contents.get(slot.name), slot)) for slot in template.slots)
    unknown = set(contents) - {slot.name for slot in template.slots}
    if unknown:
        raise TemplateError("unknown slot", field="slots", found=sorted(unknown)[0])
    written = Candidate(template.name, slots, tuple(values.items()))
    candidate = template.write(template.read(written))
    _check_numbers(template, written, candidate)
    template.sweep_of(candidate)  # refuses bounds that are none on the parameter's scale
    compile_rule(template.source(candidate), f"{file} (rendered)")
    return Heuristic(
        name, role, header.get("source", ""), header.get("summary", ""), str(file), candidate, template
    )


def _check_numbers(template: Template, written: Candidate, canonical: Candidate) -> None:
    """Refuse numbers that nothing reads, and those that their bounds would change."""
    genome = template.read(written)
    roots = [root for _, tree in genome.slots for root in expressions_of(tree)]
    numbers = [node for root in roots for node in root.walk() if node.operation == "number"]
    values = dict(written.parameters)
    for name in values:
        if name not in template.own_parameters and all(name != node.name for node in numbers):
            raise TemplateError(
                "no slot reads this parameter",
                field=f"parameters.{name}",
                cure="Give it low and high if the body reads it.",
            )
    names = [*template.own_parameters, *(node.name for node in numbers)]
    for name, parameter in zip(names, template.parameters_of(canonical), strict=True):
        if values[name] != parameter.default:
            raise TemplateError(
                "out of bounds",
                field=f"parameters.{name}",
                expected=f"a number within [{parameter.low:g}, {parameter.high:g}]",
                found=values[name],
            )


def _parameter_values(header: dict[str, Any]) -> dict[str, float]:
    values = {}
    for name, described in header.get("parameters", {}).items():
        if isinstance(described, dict):
            _check_keys(described, "parameter", f"parameters.{name}")
            if "template" in header and set(described) != {"default"}:
                raise TemplateError(
                    "bad parameter", field=f"parameters.{name}", expected="its value alone", found=described
                )
        default = described.get("default") if isinstance(described, dict) else described
        if isinstance(default, bool) or not isinstance(default, int | float):
            raise TemplateError(
                "bad parameter", field=f"parameters.{name}", expected="a number", found=default
            )
        values[name] = float(default)
    return values


def _content(content: object, slot: Slot) -> SlotContent:
    if slot.type != "clauses":
        if not isinstance(content, str):
            raise TemplateError(
                "bad slot", field=slot.name, expected=f"the text of a {slot.type}", found=content
            )
        return content
    pairs: list[Any] = content if isinstance(content, list) else [content]
    for pair in pairs:
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(each, str) for each in pair)):
            raise TemplateError(
                "bad slot", field=slot.name, expected='a list of ["mask", "FORMAT"] pairs', found=pair
            )
    return tuple((mask, name) for mask, name in pairs)
