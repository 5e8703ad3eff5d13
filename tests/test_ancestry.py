"""The champion's ancestry, and its refinements as single steps."""

from __future__ import annotations

import re
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from evolve.ancestry import ancestors, refinements_folded
from evolve.candidates import Candidate, Evaluation, Offspring, Scored


def made(number: int, operator: str, *parents: Scored) -> Scored:
    rule = Candidate("weighted", (), (("price", 1.0 + number), ("rate", 0.5)))
    ids = tuple(each.candidate.id for each in parents)
    return Scored(Offspring(rule, operator, ids, f"change {number}"), Evaluation("ok"), number)


@st.composite
def families(draw):
    """A seed and what descends from it, parents first."""
    scored = [made(0, "seed")]
    for number in range(1, draw(st.integers(1, 25))):
        operator = draw(st.sampled_from(("refine", "refine", "refine", "structure", "crossover")))
        # Mostly the youngest, so that there are long lines.
        back = draw(st.lists(st.sampled_from((1, 1, 1, 2, 3)), min_size=2, max_size=2))
        parents = [scored[max(0, len(scored) - step)] for step in back]
        scored.append(made(number, operator, *parents[: 1 + (operator == "crossover")]))
    return scored


@given(families())
def test_refinements_in_a_row_are_one_step_and_nothing_else_is_lost(scored):
    chain = ancestors(scored[-1], scored)
    folded = refinements_folded(chain)
    known = {each.candidate.id: each for each in folded}
    children = Counter(name for each in folded for name in set(each.offspring.parents))
    assert folded[-1].candidate == chain[-1].candidate
    assert [each for each in folded if each.offspring.operator != "refine"] == [
        each for each in chain if each.offspring.operator != "refine"
    ]
    steps = 0
    for each in folded:
        assert set(each.offspring.parents) <= set(known)
        if each.offspring.operator != "refine":
            continue
        before = known[each.offspring.parents[0]]
        assert before.offspring.operator != "refine" or children[before.candidate.id] > 1
        counted = re.match(r"in (\d+) steps: price (\S+) → (\S+)$", each.offspring.change)
        steps += int(counted[1]) if counted else 1
        if counted:
            assert float(counted[2]) == dict(before.candidate.parameters)["price"]
            assert float(counted[3]) == dict(each.candidate.parameters)["price"]
    assert steps == sum(each.offspring.operator == "refine" for each in chain)


def test_an_ancestry_follows_all_parents():
    seed, other = made(0, "seed"), made(1, "seed")
    child, idle = made(2, "refine", other), made(3, "refine", other)
    last = made(4, "crossover", seed, child)
    assert ancestors(last, [seed, other, child, idle, last]) == (seed, other, child, last)
