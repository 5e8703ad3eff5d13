"""Who becomes champion: the best on valid of the structures that are best on train."""

from __future__ import annotations

from dataclasses import replace

from evolve.candidates import Candidate, Evaluation, Offspring, Scored, SplitScore
from evolve.engine import FINALISTS, choose_champion, finalists


def scored(
    number: int, train: float, valid: float | None = None, complexity: int = 10, status: str = "ok"
) -> Scored:
    def split(objective: float | None) -> SplitScore | None:
        return None if objective is None else SplitScore(objective, *[objective] * 6)

    candidate = Candidate("ladder", (("otherwise", f"F{number}"),), (("number", float(number)),))
    if status == "failed":
        return Scored(Offspring(candidate, "seed"), Evaluation("failed", "why", "so", complexity=complexity))
    return Scored(
        Offspring(candidate, "seed"), Evaluation("ok", "", "", split(train), split(valid), complexity)
    )


def chosen(*candidates: Scored) -> int:
    champion = choose_champion(candidates)
    assert champion is not None
    return int(champion.candidate.parameters[0][1])


def test_valid_chooses_among_the_best_on_train():
    assert chosen(scored(0, 0.9, 0.5), scored(1, 0.8, 0.7), scored(2, 0.7, 0.6)) == 1


def test_only_finalists_can_be_champion():
    """However good on valid: one lucky model must not choose among all that was tried."""
    good = [scored(number, 0.9 - number / 100, 0.5) for number in range(FINALISTS)]
    assert chosen(*good[:-1], scored(99, 0.1, 0.99)) == 99
    assert chosen(*good, scored(99, 0.1, 0.99)) != 99


def test_a_structure_stands_once_among_the_finalists():
    """Rules that differ only in their numbers would crowd out every other."""
    alike = [replace(scored(0, 0.9 - place / 1000, 0.5), generation=place) for place in range(FINALISTS)]
    alike = [
        replace(each, offspring=Offspring(replace(each.candidate, parameters=(("number", place),)), "seed"))
        for place, each in enumerate(alike)
    ]
    assert chosen(*alike, scored(99, 0.1, 0.99)) == 99


def test_finalists_can_be_found_generation_by_generation():
    everyone = [scored(number % 7, 0.9 - number / 100, number / 50) for number in range(40)]
    found: list[Scored] = []
    for start in range(0, 40, 8):
        found = finalists([*found, *everyone[start : start + 8]])
    assert found == finalists(everyone)


def test_at_equal_fitness_the_simpler_is_champion():
    assert chosen(scored(0, 0.9, 0.6, 12), scored(1, 0.8, 0.6, 11), scored(2, 0.85, 0.6, 13)) == 1
    # Less than a billionth apart is equal.
    assert chosen(scored(0, 0.9, 0.6 + 4e-10, 12), scored(1, 0.8, 0.6, 11)) == 1
    assert chosen(scored(0, 0.9, 0.6 + 1e-6, 12), scored(1, 0.8, 0.6, 11)) == 0


def test_of_equals_on_valid_and_in_size_train_and_then_the_first_decides():
    assert chosen(scored(0, 0.8, 0.6), scored(1, 0.9, 0.6)) == 1
    assert chosen(scored(3, 0.9, 0.6), scored(1, 0.9, 0.6)) == 3


def test_without_valid_train_decides():
    assert chosen(scored(0, 0.8), scored(1, 0.9, None, 50), scored(2, 0.7)) == 1
    assert chosen(scored(0, 0.9, None, 11), scored(1, 0.9, None, 10)) == 1


def test_a_failure_is_never_champion():
    assert chosen(scored(0, 0, status="failed", complexity=1), scored(1, 0.0, 0.0)) == 1
    assert choose_champion([scored(0, 0, status="failed")]) is None
    assert choose_champion([]) is None
