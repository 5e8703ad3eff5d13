"""Checks that operators, code templates and strategies from plugins keep their contracts.

Each is tried on models, as a run would use it. An operator: on parents of every template, at the levels
``metadata`` and ``curves``. A template: filled at random. A strategy: through a few generations that are
evaluated, restored in the middle, given immigrants, and once with nothing but failures.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np

from evolve.batches import evaluate_candidates
from evolve.candidates import Evaluation, Offspring, Scored
from evolve.errors import EvolveError
from evolve.executors import Serial
from evolve.extensions import Extension, OperatorPlugin
from evolve.grammar import seeded
from evolve.plugin_files import Heuristic
from evolve.plugins import Catalogue
from evolve.search.fronts import rule_level
from evolve.search.plugin_operators import apply_plugin
from evolve.setup import Setup
from evolve.signals import LEVELS, level_index
from evolve.strategy_check import Fault, check_strategy, evaluate, prepared
from evolve.variation import newcomer

#: Random parents of each template that an operator is tried on, and fillings that a template is.
_PARENTS, _FILLINGS = 12, 100
_SEED = 20


def check_extension(
    extension: Extension, catalogue: Catalogue, datasets: str = "reference"
) -> tuple[str, ...]:
    """Try an operator or a strategy and look for faults.

    Args:
        extension: What is checked.
        catalogue: The other plugins.
        datasets: Name or path of the models to try it on.

    Returns:
        One message a fault, each with file and line; empty if there is none.
    """
    known = replace(catalogue, extensions={**catalogue.extensions, extension.name: extension})
    check = Fault(extension)
    try:
        with _untouched_generators(extension):
            if isinstance(extension, OperatorPlugin):
                for level in ("metadata", "curves"):
                    _check_operator(extension, prepared(known, datasets, level), check)
            else:
                check_strategy(extension, known, datasets, check)
    except EvolveError as error:
        return (str(error),)
    return ()


@contextmanager
def _untouched_generators(extension: Extension) -> Iterator[None]:
    """Raise `FaultError` if numpy's global generator was used in the block, or Python's left changed."""

    def states() -> tuple[object, str]:
        return random.getstate(), repr(np.random.get_state())  # noqa: NPY002 - it is what must not be used

    before = states()
    yield
    after = states()
    fault = Fault(extension)
    if after[1] != before[1]:
        raise fault("draws from numpy's global generator; draw from Python's `random`, which is seeded")
    if after[0] != before[0]:
        cure = "lend it with evolve.grammar.seeded, which puts its state back"
        raise fault(f"leaves Python's global generator changed; {cure}")


def _parents(setup: Setup) -> list[Scored]:
    """Return the seed heuristics and random candidates of every template, all within the level."""
    problem = setup.problem
    candidates = [each.candidate for each in problem.seeds]
    with seeded() as reseed:
        reseed(_SEED)
        for form in problem.templates.values():
            if form.slots:
                count = _PARENTS
                candidates += [newcomer(form, problem.templates, problem.words)[0] for _ in range(count)]
    allowed = level_index(setup.config.signals)
    kept = [each for each in candidates if rule_level(each, problem.templates) <= allowed]
    return [Scored(Offspring(each, "seed"), Evaluation("ok")) for each in kept]


def _check_operator(plugin: OperatorPlugin, setup: Setup, fault: Fault) -> None:
    parents = _parents(setup)
    problem = setup.problem

    def offspring(places: Sequence[int]) -> list[Offspring]:
        made = []
        with seeded() as reseed:
            for place in places:
                reseed(_SEED + place)
                given = [parents[(place * step) % len(parents)] for step in (1, 7)][: plugin.parents]
                made.append(apply_plugin(plugin, problem, [each.candidate for each in given]))
        return made

    # In the other order, so that what is kept between calls shows.
    places = range(len(parents))
    first, again = offspring(places), offspring(places[::-1])
    if first != again[::-1]:
        raise fault(
            "makes other candidates when called again with the same seed; draw from Python's `random` "
            "alone, and keep no state between calls"
        )
    known = {each.candidate.id for each in parents}
    if all(each.candidate.id in known for each in first):
        raise fault(f"changes nothing in any of {len(first)} candidates")
    allowed = level_index(setup.config.signals)
    for each in first:
        if rule_level(each.candidate, problem.templates) > allowed:
            raise fault(
                f"makes rules that read above the level {LEVELS[allowed]} of a run whose parents do not; "
                "draw expressions from the words that are given"
            )
    evaluate(setup, first, fault)


def check_template(
    heuristic: Heuristic, catalogue: Catalogue, datasets: str = "reference"
) -> tuple[str, ...]:
    """Fill a plugin's own code template at random and look for faults; nothing for other heuristics.

    Args:
        heuristic: The plugin.
        catalogue: The other plugins.
        datasets: Name or path of the models to try it on.

    Returns:
        One message for each kind of failure, with what a slot held when it came up; empty if every
        filling renders, can be read back and allocates.
    """
    template = heuristic.template
    if template.name != heuristic.name or not template.slots:
        return ()
    known = replace(catalogue, heuristics={**catalogue.heuristics, heuristic.name: heuristic})
    known = replace(known, templates={**catalogue.templates, template.name: template})
    setup = prepared(known, datasets, start_from=(heuristic.name,))
    with seeded() as reseed:
        reseed(_SEED)
        drawn = [newcomer(template, {}, setup.problem.words)[0] for _ in range(_FILLINGS)]
    evaluations = evaluate_candidates(drawn, setup.problem.templates, setup.arena, Serial(setup.arena))
    problems: dict[str, str] = {}
    for candidate, evaluation in zip(drawn, evaluations, strict=True):
        if evaluation.status == "failed":
            held = "; ".join(f"{name} = {content}" for name, content in candidate.slots)
            words = f"{heuristic.file}: fails when filled at random: {evaluation.reason} ({held})"
            problems.setdefault(evaluation.failure, words)
    return tuple(problems.values())
