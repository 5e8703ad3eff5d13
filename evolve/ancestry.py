"""The champion's ancestry: what it descends from, and its refinements as single steps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from evolve.candidates import Scored
from evolve.variation import words_for_numbers


def ancestors(champion: Scored, scored: Sequence[Scored]) -> tuple[Scored, ...]:
    """Return all that a candidate descends from and, last, the candidate itself, in the journal's order.

    Args:
        champion: The candidate.
        scored: Every candidate of the run, parents before their offspring.
    """
    known = {each.candidate.id: each for each in scored}
    wanted, found = [champion.candidate.id], set[str]()
    while wanted:
        name = wanted.pop()
        if name in known and name not in found:
            found.add(name)
            wanted += known[name].offspring.parents
    return tuple(each for each in scored if each.candidate.id in found)


def refinements_folded(chain: Sequence[Scored]) -> tuple[Scored, ...]:
    """Return an ancestry in which samples of CMA-ES that follow one another are one step: the last of them.

    A long search refines its champion's numbers dozens of times, by less and less. One of them whose
    numbers another operator went on with stays a step of its own.

    Args:
        chain: An ancestry, parents before their offspring.
    """
    known = {each.candidate.id: each for each in chain}
    children = Counter(name for each in chain for name in set(each.offspring.parents))
    samples: dict[str, int] = {}
    for each in chain:
        if each.offspring.operator != "refine":
            continue
        before = each.offspring.parents[0]
        samples[each.candidate.id] = 1
        if before in samples and children[before] == 1:
            samples[each.candidate.id] += samples.pop(before)
            parents = known.pop(before).offspring.parents
            known[each.candidate.id] = replace(each, offspring=replace(each.offspring, parents=parents))
    for name, count in samples.items():
        if count > 1:
            each = known[name]
            words = words_for_numbers(known[each.offspring.parents[0]].candidate, each.candidate)
            change = f"in {count} steps: {words}"
            known[name] = replace(each, offspring=replace(each.offspring, change=change))
    return tuple(known[each.candidate.id] for each in chain if each.candidate.id in known)
