"""What people hand over to be applied and checked: an allocation's file, or a rule and a profile.

Shapes: L layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from evolve.allocations import Allocation, load_allocation, names_of
from evolve.constraints import Choices
from evolve.errors import NetworkError, ProfileError
from evolve.fields import Words, blamed_on, near_match, read_json
from evolve.profiles import ModelProfile
from evolve.questions import ask, ask_rule
from evolve.ruled import find_rule


def find_allocation(
    spec: str,
    profile: ModelProfile | None = None,
    budgets: Sequence[str] = (),
    level: str = "curves",
) -> tuple[Allocation, tuple[str, ...]]:
    """Return the allocation that a text names, and what people must know about it.

    Args:
        spec: An allocation's file; or a rule that is run on the profile: a heuristic's name, a plugin file,
            a champion's ``champion.json`` or ``champion.py``, or the folder of its run or report.
        profile: The network's profile.
        budgets: What the rule has to keep, such as ``avg_bits=4.5``; its price is set to that.
        level: The information level that the rule may read.

    Raises:
        NetworkError: There is a rule without a profile, or budgets without a rule.
        InputError: The file, the rule or a budget is wrong.
    """
    if _is_allocation(spec):
        if budgets:
            cure = "An allocation is made already: leave --budget out, or name a rule."
            raise NetworkError("nothing to fit to a budget", file=spec, field="--budget", cure=cure)
        return load_allocation(spec), ()
    rule = find_rule(spec)
    if profile is None:
        cure = "Give --profile PROFILE.json, which 'evolve profile' makes."
        raise NetworkError("a rule needs the network's profile", file=spec, field="--profile", cure=cure)
    # The rule's own, whatever it is: the network itself says whether a uniform format is better.
    answer = ask_rule(ask(profile, budgets), rule, level, None, fall_back=False)
    return answer.allocation(), answer.notes


def choices_of(profile: ModelProfile, allocation: Allocation) -> Choices:
    """Return an allocation as format indices of a profile, (L,).

    Raises:
        ProfileError: The profile is of other layers, lacks a format, or ties layers that differ.
    """
    names = names_of(profile)
    if set(names) != set(allocation.names):
        odd = sorted(set(names) ^ set(allocation.names))
        raise ProfileError(
            "the profile is of another network than the allocation",
            file=profile.name,
            field="--profile",
            expected=f"the {len(allocation.names)} layers of the allocation",
            found=Words(f"{len(names)} layers, of which differ {', '.join(odd[:3])}"),
        )
    chosen = dict(zip(allocation.names, allocation.formats, strict=True))
    known = {name: index for index, name in enumerate(profile.format_names)}
    for name in names:
        if chosen[name] not in known:
            raise ProfileError(
                "the profile has no such format",
                file=profile.name,
                place=f"layer {name}",
                field="format",
                expected=f"one of {', '.join(known)}",
                found=chosen[name],
                cure=near_match(chosen[name], tuple(known)),
            )
    for group in profile.tied_layers:
        first = names[group[0]]
        for at in group[1:]:
            if chosen[names[at]] != chosen[first]:
                raise ProfileError(
                    "the allocation breaks a tie of the profile",
                    file=profile.name,
                    place=f"layer {names[at]}",
                    field="format",
                    expected=f"{chosen[first]}, as in {first}",
                    found=chosen[names[at]],
                    cure="Give tied layers one format.",
                )
    return np.array([known[chosen[name]] for name in names], dtype=np.uint8)


def _is_allocation(spec: str) -> bool:
    """Whether a text names an allocation's file: JSON that is no champion."""
    path = Path(spec)
    if path.suffix != ".json":
        return False
    with blamed_on(path):
        data = read_json(path)
    return not (isinstance(data, dict) and "template" in data)
