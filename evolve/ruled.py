"""The allocation that a rule gives one model, as it is or with its price set to keep budgets.

Shapes: P parameter vectors, F parameters, L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from evolve.budgets import RETENTION, Budget
from evolve.candidates import Candidate
from evolve.constraints import Choices, keeps
from evolve.errors import BudgetError, PluginError
from evolve.evaluation import Failure, allocate
from evolve.fields import Words, blamed_on, near_match, read_json
from evolve.layer_groups import widest_of_groups
from evolve.parameters import Parameter
from evolve.plugins import find_heuristics, load_catalogue
from evolve.profiles import ModelProfile
from evolve.python_source import compile_rule
from evolve.scoring import FloatArray
from evolve.standalone import find_standalone, with_bounds_beside
from evolve.templates import Template
from evolve.views import ChoiceArray, ModelView

# Values of a price that are tried at once, and how often the gap around the best of them is looked into.
_GRID = 257
_ROUNDS = 3
_EXACT_DIGITS = 15


@dataclass(frozen=True)
class NamedRule:
    """A rule with its numbers.

    Attributes:
        name: What people call it.
        source: Python that defines ``allocate``.
        file: Where it comes from.
        parameters: Its F numbers with their bounds, the values as defaults.
        sweep: Which of them trades bits for loss, as the rule itself says; empty where it says nothing.
    """

    name: str
    source: str
    file: str
    parameters: tuple[Parameter, ...]
    sweep: str = ""


@dataclass(frozen=True, eq=False)
class Ruling:
    """What a rule gives a model.

    Attributes:
        rule: The rule, its parameters as they were used.
        choices: Format index of each layer, (L,), ties kept.
        swept: The parameter that was set to keep budgets; None where the rule is as it was.
        widened: Layers that a tie put in a wider format than the rule's own.
    """

    rule: NamedRule
    choices: Choices
    swept: str | None
    widened: int


def find_rule(name: str) -> NamedRule:
    """Return a rule by a heuristic's name, a file, or the folder of its run or report.

    Args:
        name: A heuristic; a plugin file; a ``champion.json``; or a file that stands alone.

    Raises:
        InputError: There is none, or it cannot be used.
    """
    catalogue = load_catalogue()
    path = with_bounds_beside(Path(name))
    alone = find_standalone(path)
    if alone is not None:
        return NamedRule(path.stem, alone.source, str(path), alone.parameters)
    if path.suffix == ".json" or (path / "champion.json").is_file():
        file = path if path.suffix == ".json" else path / "champion.json"
        candidate = _read_champion(file)
        if candidate.template not in catalogue.templates:
            raise PluginError(
                "unknown template",
                file=file,
                field="template",
                found=candidate.template,
                cure="Put the plugin that brings it into heuristics/.",
            )
        return _named(
            f"champion {candidate.id}", str(file), candidate, catalogue.templates[candidate.template]
        )
    (heuristic,) = find_heuristics(catalogue, [name])
    return _named(heuristic.name, heuristic.file, heuristic.candidate, heuristic.template)


def _named(name: str, file: str, candidate: Candidate, template: Template) -> NamedRule:
    bounds = {each.name: each for each in template.parameters_of(candidate)}
    sweep = template.sweep_of(candidate)
    if sweep is not None:
        bounds[sweep.name] = sweep
    parameters = tuple(_with_value(bounds.get(key), key, value) for key, value in candidate.parameters)
    return NamedRule(name, template.source(candidate), file, parameters, "" if sweep is None else sweep.name)


def _with_value(bounds: Parameter | None, name: str, value: float) -> Parameter:
    """Return a parameter with its value, bounds widened where it lies outside."""
    if bounds is None:
        return Parameter(name, value, value - 1, value + 1)
    return replace(bounds, default=value, low=min(bounds.low, value), high=max(bounds.high, value))


def _read_champion(file: Path) -> Candidate:
    with blamed_on(file):
        data = read_json(file)
    try:
        if not isinstance(data, dict):
            raise TypeError("not an object")
        return Candidate.from_json(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        words = "a champion, with template, slots and parameters"
        raise PluginError(f"not a champion ({error})", file=file, expected=words) from None


def rule_as_it_is(rule: NamedRule, profile: ModelProfile, level: str = "curves") -> Ruling:
    """Return what a rule gives a model.

    Args:
        rule: The rule.
        profile: The model.
        level: The information level that the rule may read.

    Raises:
        PluginError: The rule fails on this model.
    """
    (raw,) = _choices(rule, profile, level, _values(rule))
    return _ruling(rule, profile, raw, None)


def rule_within(
    rule: NamedRule,
    profile: ModelProfile,
    budgets: Sequence[Budget],
    level: str = "curves",
    swept: str | None = None,
) -> Ruling:
    """Return the widest allocation within budgets that a rule gives over all values of its price.

    With a floor of the retention among the budgets it is the narrowest one.

    Args:
        rule: The rule.
        profile: The model.
        budgets: What is limited.
        level: The information level that the rule may read.
        swept: The parameter to change. By default the first that can keep the budgets of those along
            which the model's bits only ever rise, or only ever fall: the one that the rule itself names,
            then the widest range of bits first.

    Raises:
        PluginError: The rule fails on this model, or has no such parameter.
        BudgetError: No value of the parameter keeps the budgets.
    """
    places = _prices_of(rule, profile, level, swept)
    narrowest = any(each.cost.name == RETENTION for each in budgets)
    for place in places:
        best = _fit(rule, profile, budgets, level, place, narrowest)
        if best is not None:
            used = list(rule.parameters)
            used[place] = replace(used[place], default=best[0])
            return _ruling(replace(rule, parameters=tuple(used)), profile, best[1], used[place].name)
    raise _nothing_fits(rule, profile, budgets, level, places)


def _fit(
    rule: NamedRule,
    profile: ModelProfile,
    budgets: Sequence[Budget],
    level: str,
    place: int,
    narrowest: bool,
) -> tuple[float, ChoiceArray] | None:
    """Return the value of one parameter that fits best, and what the rule then chooses, (L,), if any fits."""
    best: tuple[float, ChoiceArray] | None = None
    units = np.linspace(0, 1, _GRID)
    for _ in range(1 + _ROUNDS):
        values, choices = _along(rule, profile, level, place, units)
        at = _widest(choices, profile, budgets, narrowest)
        if at is None:
            break
        best = float(values[at]), choices[at]
        units = np.linspace(units[max(at - 1, 0)], units[min(at + 1, _GRID - 1)], _GRID)
    return best


def _widest(
    choices: ChoiceArray, profile: ModelProfile, budgets: Sequence[Budget], narrowest: bool
) -> int | None:
    """Return which of P choices, (P, L), is the widest (or narrowest) within budgets; None if none is."""
    tied = widest_of_groups(choices, profile.tied_layers)
    fitting = [index for index, each in enumerate(tied) if keeps(each, budgets)]
    bits = _bits(tied, profile) * (-1 if narrowest else 1)
    return max(fitting, key=lambda index: bits[index], default=None)


def _prices_of(rule: NamedRule, profile: ModelProfile, level: str, swept: str | None) -> list[int]:
    """Return which parameters may be the rule's price, the likeliest first."""
    names = [each.name for each in rule.parameters]
    if swept is not None:
        if swept not in names:
            words = f"one of {', '.join(names)}" if names else "a rule with parameters"
            cure = near_match(swept, tuple(names)) if names else None
            raise PluginError(
                "no such parameter", file=rule.name, field="--sweep", expected=words, found=swept, cure=cure
            )
        return [names.index(swept)]
    spans = []
    for place in range(len(names)):
        _, choices = _along(rule, profile, level, place, np.linspace(0, 1, _GRID))
        bits = _bits(widest_of_groups(choices, profile.tied_layers), profile)
        steps = np.diff(bits)
        turns = (steps > 0).any() and (steps < 0).any()
        spans.append(0.0 if turns or len(np.unique(bits)) < 3 else float(np.ptp(bits)))
    if not any(spans):
        own = rule_as_it_is(rule, profile, level)
        as_it_is = f"Without a budget it gives {_bits(own.choices[None], profile)[0]:.4g} bits"
        raise PluginError(
            "the rule has no price that trades bits for accuracy, so it cannot be fitted to a budget",
            file=rule.name,
            expected="a parameter along which the bits rise or fall",
            found=Words(", ".join(names) or "no parameters"),
            cure=f"{as_it_is}; --sweep names a parameter to try anyway." if names else f"{as_it_is}.",
        )
    order = sorted(range(len(spans)), key=lambda at: (names[at] != rule.sweep, -spans[at]))
    return [place for place in order if spans[place]]


def _nothing_fits(
    rule: NamedRule, profile: ModelProfile, budgets: Sequence[Budget], level: str, places: Sequence[int]
) -> BudgetError:
    units = np.linspace(0, 1, _GRID)
    reached = [_along(rule, profile, level, place, units)[1] for place in places]
    tied = [each for choices in reached for each in widest_of_groups(choices, profile.tied_layers)]
    words = f"whatever its {' or '.join(rule.parameters[place].name for place in places)}"
    for budget in budgets:
        least = min(budget.cost.total(each) for each in tied)
        if least > budget.most:
            side = "at most" if budget.cost.name == RETENTION else "at least"
            return BudgetError(
                f"{rule.name} never keeps this budget, {words}",
                field=budget.cost.name,
                expected=f"{side} {budget.cost.reachable(least)}",
                found=Words(budget.cost.words(budget.most)),
            )
    names = ", ".join(each.cost.name for each in budgets)
    return BudgetError(f"{rule.name} never keeps all budgets, {words}", field=names)


def _along(
    rule: NamedRule, profile: ModelProfile, level: str, place: int, units: FloatArray
) -> tuple[FloatArray, ChoiceArray]:
    """Return P values of one parameter, (P,), and what the rule chooses with each, (P, L)."""
    parameter = rule.parameters[place]
    values = np.repeat(_values(rule), len(units), axis=0)
    values[:, place] = [parameter.from_unit(float(unit), _EXACT_DIGITS) for unit in units]
    return values[:, place], _choices(rule, profile, level, values)


def _values(rule: NamedRule) -> FloatArray:
    return np.array([[each.default for each in rule.parameters]], dtype=np.float64).reshape(1, -1)


def _choices(rule: NamedRule, profile: ModelProfile, level: str, values: FloatArray) -> ChoiceArray:
    """Return what a rule chooses with P parameter vectors, (P, L)."""
    compiled = compile_rule(rule.source, rule.file or "<rule>")
    names = tuple(each.name for each in rule.parameters)
    found = allocate(compiled, ModelView([profile], level), names, values)
    if isinstance(found, Failure):
        known = f"The formats of {profile.name} are {', '.join(profile.format_names)}."
        cure = known if "format" in found.reason else None
        raise PluginError(f"the rule fails on this model: {found.reason}", file=rule.name, cure=cure)
    return found


def _bits(choices: ChoiceArray, profile: ModelProfile) -> FloatArray:
    """Return the bits per weight of allocations, (P, L), as (P,)."""
    size = profile.num_params[:, None] * profile.bits_table
    total: FloatArray = size[np.arange(profile.num_layers), choices].sum(axis=1) / profile.total_params
    return total


def _ruling(rule: NamedRule, profile: ModelProfile, raw: ChoiceArray, swept: str | None) -> Ruling:
    choices = widest_of_groups(raw, profile.tied_layers)
    return Ruling(rule, choices, swept, int((choices != raw).sum()))
