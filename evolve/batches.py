"""From many candidates to few calls: those of one source are evaluated together."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from evolve.candidates import Candidate, Evaluation
from evolve.errors import TemplateError
from evolve.evaluation import Arena, Failure, ModelScores, SearchArena, Task, template_failure
from evolve.executors import Executor
from evolve.python_source import complexity
from evolve.templates import Template

FloatArray = NDArray[np.float64]

#: Parameter vectors of one task; fixed, so that no number of workers changes what is computed together.
_TASK_SIZE = 256


@dataclass(frozen=True)
class Batch:
    """Candidates as tasks.

    Attributes:
        tasks: What to compute.
        members: For each task, the places of its candidates.
        sizes: For each candidate, the complexity of its source; 0 where there is none.
        failures: By place, why a candidate has no source.
    """

    tasks: tuple[Task, ...]
    members: tuple[tuple[int, ...], ...]
    sizes: tuple[int, ...]
    failures: Mapping[int, Failure]


def make_batch(
    candidates: Sequence[Candidate], templates: Mapping[str, Template], swept: bool = False
) -> Batch:
    """Group candidates by source and parameter names.

    Args:
        candidates: What to evaluate.
        templates: Their code templates, by name.
        swept: Whether the tasks are to say which parameter trades bits for loss.
    """
    groups: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    failures: dict[int, Failure] = {}
    sizes = []
    for index, candidate in enumerate(candidates):
        try:
            source = templates[candidate.template].source(candidate)
        except TemplateError as error:
            failures[index] = template_failure("does not render", error)
            sizes.append(0)
            continue
        sizes.append(complexity(source))
        groups.setdefault((source, tuple(name for name, _ in candidate.parameters)), []).append(index)
    tasks, members = [], []
    for (source, names), indices in groups.items():
        first = candidates[indices[0]]
        file = templates[first.template].file
        sweep = templates[first.template].sweep_of(first) if swept else None
        for start in range(0, len(indices), _TASK_SIZE):
            part = indices[start : start + _TASK_SIZE]
            rows = [[value for _, value in candidates[index].parameters] for index in part]
            values = np.array(rows, dtype=np.float64).reshape(len(part), len(names))
            tasks.append(Task(source, file, names, values, sweep))
            members.append(tuple(part))
    return Batch(tuple(tasks), tuple(members), tuple(sizes), failures)


def evaluate_candidates(
    candidates: Sequence[Candidate], templates: Mapping[str, Template], arena: SearchArena, executor: Executor
) -> list[Evaluation]:
    """Evaluate candidates, those of one source together; results in the order of the candidates."""
    batch = make_batch(candidates, templates, arena.budgets is not None)
    evaluations = {index: _evaluation(each, 0, arena) for index, each in batch.failures.items()}
    for part, results in zip(batch.members, executor.map(batch.tasks), strict=True):
        for index, result in zip(part, results, strict=True):
            evaluations[index] = _evaluation(result, batch.sizes[index], arena)
    return [evaluations[index] for index in range(len(candidates))]


def _evaluation(result: ModelScores | Failure, size: int, arena: SearchArena) -> Evaluation:
    if isinstance(result, Failure):
        return Evaluation("failed", result.kind, result.reason, complexity=size)
    train, valid = arena.summaries(result)
    return Evaluation("ok", "", "", train, valid, size)


def fingerprints(
    candidates: Sequence[Candidate], templates: Mapping[str, Template], probe: Arena
) -> list[tuple[str, int]]:
    """Return what each candidate does on the probe's models, as a fingerprint, and its complexity."""
    batch = make_batch(candidates, templates, probe.budgets is not None)
    found = {index: each.reason for index, each in batch.failures.items()}
    for part, task in zip(batch.members, batch.tasks, strict=True):
        found |= dict(zip(part, probe.behaviours(task), strict=True))
    return [(found[index], batch.sizes[index]) for index in range(len(candidates))]


def spending(
    candidates: Sequence[Candidate],
    swept: str,
    values: FloatArray,
    along: Sequence[str] = (),
    *,
    templates: Mapping[str, Template],
    probe: Arena,
) -> FloatArray:
    """Return the binary logarithm of the bits a weight that candidates spend, a mean over the models.

    NaN where a rule fails, and for families, which spend whatever the budgets allow.

    Args:
        candidates: C rules of one structure.
        swept: One of their parameters.
        values: What that parameter is to be, (C, S).
        along: Others of their parameters, which change by the same factor.
        templates: The code templates, by name.
        probe: The models.

    Returns:
        (C, S) numbers.
    """
    found = np.full(values.shape, math.nan)
    batch = make_batch(candidates, templates)
    if probe.budgets is not None:
        return found
    for members, task in zip(batch.members, batch.tasks, strict=True):
        rows = np.repeat(task.values, values.shape[1], axis=0)
        place, wanted = task.names.index(swept), values[list(members)].ravel()
        for name in along:
            rows[:, task.names.index(name)] *= wanted / rows[:, place]
        rows[:, place] = wanted
        results = probe.evaluate(replace(task, values=rows))
        bits = [math.nan if isinstance(each, Failure) else np.log2(each.avg_bits).mean() for each in results]
        found[list(members)] = np.reshape(bits, (len(members), -1))
    return found
