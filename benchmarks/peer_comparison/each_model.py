"""Second comparison: searching the formats of each model anew, which a rule saves.

A point is an allocation: one of K formats for each of the L layers. Each tool maximises the share
of the optimum on one test model at a time. It starts from the best uniform format; the K
evaluations that find it count. The rules allocate without evaluating the model at all; what their
signals cost to measure is stated beside them.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from evolve.datasets import find_dataset
from evolve.evaluation import Arena, Failure, Task
from evolve.plugin_files import Heuristic
from evolve.plugins import load_catalogue
from evolve.profiles import ModelProfile
from evolve.scoring import prepare
from evolve.signals import LEVELS
from peer_comparison.outcomes import Outcome
from peer_comparison.problems import BudgetSpentError, FloatArray, Recorder, Space
from peer_comparison.tools import run_tool

POPULATION = 100
CHAMPION = "wider_fp16_zone"
TWO_LINES = "layernorm_fp32_else_fp16"


@dataclass(frozen=True)
class RuleOnModels:
    """A rule, applied to the models as it stands.

    Attributes:
        name: Its name.
        level: The lowest information level at which it works.
        cost: What measuring its signals takes on one model.
        shares: By model, its share of the optimum.
    """

    name: str
    level: str
    cost: str
    shares: Mapping[str, float]


#: What measuring the signals of each level takes.
COSTS: Mapping[str, str] = {
    "metadata": "nothing",
    "statistics": "one forward pass",
    "gradient": "one backward pass",
    "curves": "L·K evaluations",
}


@cache
def _test_models(dataset: str) -> tuple[ModelProfile, ...]:
    return find_dataset(dataset).test


def choose_models(dataset: str, count: int, most_layers: int) -> tuple[str, ...]:
    """Return names of test models, evenly spread over those with at most so many layers."""
    fitting = [each for each in _test_models(dataset) if each.num_layers <= most_layers]
    fitting.sort(key=lambda each: (each.num_layers, each.name))
    places = np.linspace(0, len(fitting) - 1, min(count, len(fitting))).round().astype(int)
    return tuple(fitting[place].name for place in places)


def model_named(dataset: str, name: str) -> ModelProfile:
    """Return a test model."""
    return next(each for each in _test_models(dataset) if each.name == name)


def run(dataset: str, model: str, tool: str, seed: int, budget: int) -> Outcome:
    """Let one tool search the formats of one model with one seed."""
    profile = model_named(dataset, model)
    table = prepare(profile.num_params, profile.bits, profile.sensitivity)
    optimum = Arena([profile]).optimum_fitness[0]
    space = Space(profile.num_layers, len(profile.formats), POPULATION)

    def share(points: FloatArray) -> FloatArray:
        return table.score(points.astype(np.uint8)).fitness / optimum

    began = time.perf_counter()
    recorder = Recorder(share, space, budget)
    uniform = np.repeat(np.arange(len(profile.formats))[:, None], profile.num_layers, axis=1).astype(float)
    try:
        start = uniform[recorder(uniform).argmax()]
        run_tool(tool, recorder, space, start, seed)
    except BudgetSpentError:
        pass  # a budget of fewer evaluations than formats
    return Outcome(tool, model, seed, recorder.best_so_far, time.perf_counter() - began)


def rules_on(dataset: str, models: tuple[str, ...]) -> list[RuleOnModels]:
    """Return the rules: the published two and the best discovered one of each information level.

    The valid models choose among the discovered rules of the catalogue, and put all in order.
    """
    published = (CHAMPION, TWO_LINES)
    found = [
        each
        for each in load_catalogue().heuristics.values()
        if each.role == "discovered" or each.name in published
    ]
    on_valid = {each.name: _apply(each, find_dataset(dataset).valid) for each in found}
    found.sort(key=lambda each: np.mean(on_valid[each.name][1]), reverse=True)
    chosen, levels = [], set()
    for each in found:
        level = on_valid[each.name][0]
        if each.name in published or level not in levels:
            chosen.append(each)
        if each.name not in published:
            levels.add(level)
    results = []
    for each in chosen:
        level, shares = _apply(each, tuple(model_named(dataset, name) for name in models))
        by_model = dict(zip(models, shares.tolist(), strict=True))
        results.append(RuleOnModels(each.name, level, COSTS[level], by_model))
    return results


def _apply(rule: Heuristic, models: tuple[ModelProfile, ...]) -> tuple[str, FloatArray]:
    """Return the lowest information level at which a rule works, and its shares of M optima, (M,)."""
    names = tuple(name for name, _ in rule.candidate.parameters)
    values = np.array([[value for _, value in rule.candidate.parameters]]).reshape(1, len(names))
    task = Task(rule.template.source(rule.candidate), rule.file, names, values)
    reason = ""
    for level in LEVELS:
        arena = Arena(models, level)
        (result,) = arena.evaluate(task)
        if not isinstance(result, Failure):
            return level, result.fitness / arena.optimum_fitness
        reason = result.reason
    raise RuntimeError(f"{rule.name} works at no level: {reason}")
