"""Writes a rule as one Python file that needs numpy and nothing of ours.

Whoever gets the file may never have heard of this project: it says what the rule does and did, holds
the rule's source as it is, and only so much of a model view as the rule uses.
"""

from __future__ import annotations

import ast
import sys
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cache

from evolve.candidates import Candidate
from evolve.errors import PluginError
from evolve.formats import known_formats
from evolve.profiles import LAYER_TYPES
from evolve.reports.markdown import render
from evolve.reports.readable import shown_rule
from evolve.reports.rule_source import RuleSource, given_by, rule_source
from evolve.reports.words import in_words
from evolve.signals import MEASURED_SIGNALS, MEASURED_TABLES, PER_LAYER_SIGNALS
from evolve.templates import Template

_WIDTH = 88
_STANDARD_IMPORTS = ("import argparse", "import json", "import sys", "from pathlib import Path")
_NUMPY = "import numpy as np"
_PARAMETERS_IMPORT = "from types import SimpleNamespace"
#: Signals that the file computes from others; the rest are fields of a layer.
_DERIVED = ("relative_position", "edge_distance", "depth", "param_fraction", "num_params")
#: What each member of the model view needs, of itself, of others, or of a layer's fields.
_NEEDS: Mapping[str, tuple[str, ...]] = {
    **{name: ("column",) for name in PER_LAYER_SIGNALS if name not in _DERIVED},
    **dict.fromkeys((*MEASURED_SIGNALS, *MEASURED_TABLES), ("_measured",)),
    "relative_position": ("layer_idx", "column"),
    "edge_distance": ("layer_idx", "column"),
    "depth": (),
    "num_params": ("column",),
    "param_fraction": ("num_params",),
    "is_type": ("layer_type",),
    "by_type": ("layer_type", "num_layers"),
    "sensitivity": ("_index", "_sensitivity"),
    "loss": ("_sensitivity",),
    "bits": (),
    "where": ("_index",),
    "select": ("_index",),
    "cheapest": (),
    "narrowest": (),
    "total": ("_full",),
    "mean": ("total",),
    "fraction": ("mean",),
    "largest": ("_full",),
    "rank": ("_order",),
    "share_below": ("_order", "total"),
    "_order": ("_full", "layer_idx", "column"),
    "running_total": ("share_below",),
    "quantile": ("_full",),
    "bits_of": ("bits",),
    "pick": (),
    "formats": (),
    "num_layers": (),
    "offsets": (),
}
_FIELDS = {
    "layer_type": f"one of {', '.join(LAYER_TYPES)}",
    "layer_idx": "the layer's place in the model, from 0",
    "num_params": "number of weights",
    "_sensitivity": "a list, one for each format: the share of accuracy lost with this layer alone in it",
}


def standalone_source(
    candidate: Candidate,
    template: Template,
    *,
    title: str,
    facts: Mapping[str, object],
    file: str = "champion.py",
    tied: bool = False,
) -> str:
    """Render a rule as the source of a standalone Python file.

    The file needs numpy alone, and what else the rule itself imports. It has a function
    ``allocate(profile)``, which takes the parsed JSON of a profile and returns the name of a
    format for each layer, and is a program that does so from the command line.

    Args:
        candidate: The rule.
        template: Its code template.
        title: What it is, on one line.
        facts: What it was measured to do, in the order to be told: a name and a number or text.
        file: What the file is called.
        tied: Whether it keeps the ties of profiles: tied layers get the widest format chosen for one of them.

    Raises:
        PluginError: The rule needs more of this package than a model view.
    """
    shown = shown_rule(candidate, template)
    source, parameters = shown.source, dict(shown.parameters)
    imports = [*_STANDARD_IMPORTS, *([_PARAMETERS_IMPORT] if parameters else [])]
    taken = {line.split()[-1]: line for line in (*imports, _NUMPY)}
    rule = rule_source(source, template.file, dict.fromkeys(_own_names(), "") | taken)
    members = _members(rule, template.file)
    third_party = {line for line in (_NUMPY, *rule.imports) if not _is_standard(line)}
    return render(
        "champion.py.j2",
        {
            "docstring": _docstring(title, in_words(source, parameters), members, third_party, facts, file),
            "standard_imports": _sorted({*imports, *filter(_is_standard, rule.imports)}),
            "other_imports": _sorted(third_party),
            "known_formats": known_formats(),
            "layer_types": "({})".format(", ".join(f'"{name}"' for name in LAYER_TYPES)),
            "parameters": parameters,
            "rule": rule.text,
            "rule_name": rule.name,
            "members": members,
            "tied": tied,
            "plain_signals": _plain_signals(members),
            "measured_signals": [name for name in MEASURED_SIGNALS if name in members],
            "measured_tables": [name for name in MEASURED_TABLES if name in members],
        },
    )


@cache
def _own_names() -> tuple[str, ...]:
    """Return the names that the file defines itself: those of a file with every member."""
    everything = dict.fromkeys(("docstring", "rule", "rule_name", "layer_types"), "rule")
    names = ("standard_imports", "other_imports", "known_formats", "plain_signals")
    lists = dict.fromkeys((*names, "measured_signals", "measured_tables"), ())
    text = render(
        "champion.py.j2",
        {**everything, **lists, "parameters": {"x": 0}, "members": _with_needs(_NEEDS), "tied": True},
    )
    return tuple(name for each in ast.parse(text).body for name in sorted(given_by(each)))


def _plain_signals(members: Collection[str]) -> list[str]:
    return [name for name in PER_LAYER_SIGNALS if name in members and name not in _DERIVED]


def _with_needs(members: Iterable[str]) -> frozenset[str]:
    found: set[str] = set()
    wanted = list(members)
    while wanted:
        name = wanted.pop()
        if name not in found:
            found.add(name)
            wanted += _NEEDS.get(name, ())
    return frozenset(found)


def _members(rule: RuleSource, file: str) -> frozenset[str]:
    """Return the members of the model view that a rule uses, and what they need."""
    nodes = list(ast.walk(ast.parse(rule.text)))
    for node in nodes:
        if isinstance(node, ast.FunctionDef) and node.name == rule.name:
            _check_members(node, file)
    used = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    if any(isinstance(node, ast.Name) and node.id in ("getattr", "attrgetter") for node in nodes):
        used |= {str(node.value) for node in nodes if isinstance(node, ast.Constant)}
    return _with_needs(used & set(_NEEDS))


def _check_members(rule: ast.FunctionDef, file: str) -> None:
    arguments = rule.args.posonlyargs + rule.args.args
    for node in ast.walk(rule):
        match node:
            case ast.Attribute(ast.Name(owner), name) if owner == arguments[0].arg and name not in _NEEDS:
                raise PluginError(
                    "the rule cannot stand alone",
                    file=file,
                    field=f"{owner}.{name}",
                    expected=f"one of {', '.join(_NEEDS)}",
                )


def _is_standard(line: str) -> bool:
    return line.split()[1].partition(".")[0] in sys.stdlib_module_names


def _sorted(lines: Iterable[str]) -> list[str]:
    """Return import statements in the order that formatters give them, those of one module as one."""
    plain = sorted(line for line in lines if line.startswith("import "))
    names: dict[str, list[str]] = {}
    for line in lines:
        if line.startswith("from "):
            start, _, name = line.partition(" import ")
            names.setdefault(start, []).append(name)
    return plain + [f"{start} import {', '.join(sorted(names[start], key=_kind))}" for start in sorted(names)]


def _kind(name: str) -> tuple[bool, bool, str]:
    return not name.isupper(), name[0].islower(), name


def _docstring(
    title: str,
    words: str,
    members: frozenset[str],
    third_party: set[str],
    facts: Mapping[str, object],
    file: str,
) -> str:
    packages = sorted({line.split()[1].partition(".")[0] for line in third_party})
    parts = [
        _wrapped(f"{title.strip().removesuffix('.')}."),
        _wrapped(words),
        f"Needs {' and '.join(packages)}. Use it as a program, or import its function ``allocate``:",
        f"    python {file} profile.json\n    python {file} profile.json --json",
        *_profile_in_words(members),
    ]
    if facts:
        told = (
            f"{name}: {value:.4g}" if isinstance(value, float) else f"{name}: {value}"
            for name, value in facts.items()
        )
        parts += ["What it was measured to do:", "\n".join(_wrapped(f"- {fact}", "  ") for fact in told)]
    text = "\n\n".join(parts) + "\n"
    return text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')


def _wrapped(text: str, indent: str = "") -> str:
    lines = textwrap.wrap(
        text.replace(" %", "\N{NO-BREAK SPACE}%"),
        _WIDTH,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines).replace("\N{NO-BREAK SPACE}%", " %")


def _profile_in_words(members: frozenset[str]) -> Iterator[str]:
    read = {name: meaning for name, meaning in _FIELDS.items() if name in members}
    read |= {name: PER_LAYER_SIGNALS[name].meaning for name in _plain_signals(members)}
    measured = {name: each.meaning for name, each in MEASURED_SIGNALS.items() if name in members}
    measured |= {
        name: f"a list, one for each format: {each.meaning}"
        for name, each in MEASURED_TABLES.items()
        if name in members
    }
    read |= {f"measurements.{name}": meaning for name, meaning in measured.items()}
    yield _wrapped(
        "The profile of a model is a JSON object with two lists. `formats` has the number formats to choose "
        "from: names like FP16, or objects with name, bits (per weight) and kind. `layers` has an object for "
        f"each layer{', of which this rule reads:' if read else '.'}"
    )
    if read:
        yield "\n".join(_wrapped(f"- {name.lstrip('_')}: {each}", "  ") for name, each in read.items())
