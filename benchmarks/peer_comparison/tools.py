"""The tools, each behind one call: search the space from a start until the budget is spent.

Each is used as its documentation shows, with its own defaults except for the population, which is
the same for all that leave it to the user. Every tool evaluates the given start first or as part of
its first population. A tool that works on whole populations has them evaluated in one call.
"""

from __future__ import annotations

import itertools
import random
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from typing import Any
from unittest import mock

import numpy as np

from peer_comparison.problems import BudgetSpentError, FloatArray, Recorder, Space

Tool = Callable[[Recorder, Space, FloatArray, int], None]
PACKAGES = ("pymoo", "nevergrad", "optuna", "cmaes", "deap", "numpy", "scipy")


def run_tool(name: str, recorder: Recorder, space: Space, start: FloatArray, seed: int) -> None:
    """Let a tool spend the recorder's budget; the same seed gives the same points."""
    with _global_generators(seed), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a tool thinks of its own settings is not our subject
        try:
            TOOLS[name](recorder, space, start, seed)
        except BudgetSpentError:
            return


def versions() -> dict[str, str]:
    """Return the installed version of each package."""
    return {name: metadata.version(name) for name in PACKAGES}


@contextmanager
def _global_generators(seed: int) -> Iterator[None]:
    """Seed Python's and numpy's global generators, which some tools draw from, and restore them."""
    states = random.getstate(), np.random.get_state()  # noqa: NPY002 - not ours to choose
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - not ours to choose
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002 - not ours to choose


def pymoo_ga(recorder: Recorder, space: Space, start: FloatArray, seed: int) -> None:
    """Search with pymoo's genetic algorithm, over whole numbers with its integer operators."""
    from pymoo.algorithms.soo.nonconvex.ga import GA
    from pymoo.operators.crossover.sbx import SBX
    from pymoo.operators.mutation.pm import PM
    from pymoo.operators.repair.rounding import RoundingRepair

    operators: dict[str, Any] = {}
    if space.choices is not None:
        repair = RoundingRepair()
        operators["crossover"] = SBX(prob=1.0, eta=3.0, vtype=float, repair=repair)
        operators["mutation"] = PM(prob=1.0, eta=3.0, vtype=float, repair=repair)
    first = space.first_population(start, seed)
    _pymoo(GA(pop_size=space.population, sampling=first, **operators), recorder, space, seed)


def pymoo_de(recorder: Recorder, space: Space, start: FloatArray, seed: int) -> None:
    """Search with pymoo's differential evolution, whole numbers by rounding."""
    from pymoo.algorithms.soo.nonconvex.de import DE

    first = space.first_population(start, seed)
    _pymoo(DE(pop_size=space.population, sampling=first), recorder, space, seed)


def _pymoo(algorithm: Any, recorder: Recorder, space: Space, seed: int) -> None:
    from pymoo.core.problem import Problem
    from pymoo.optimize import minimize

    class Negated(Problem):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__(n_var=space.dimension, n_obj=1, xl=0.0, xu=space.high)

        def _evaluate(self, points: FloatArray, out: dict[str, Any], *_: Any, **__: Any) -> None:
            out["F"] = -recorder(points)[:, None]

    minimize(Negated(), algorithm, ("n_gen", recorder.budget), seed=seed, verbose=False)


def nevergrad_ngopt(recorder: Recorder, space: Space, start: FloatArray, seed: int) -> None:
    """Search with nevergrad's NGOpt, which chooses its algorithm by dimension and budget."""
    import cma
    import nevergrad
    from nevergrad.optimization import metamodel

    def seeded_fmin(objective: Any, x0: Any, *, options: dict[str, Any], **others: Any) -> Any:
        return fmin(objective, x0, options={**options, "seed": next(seeds)}, **others)

    # NGOpt's surrogate takes float() of arrays of length 1, which numpy 2.4 refuses; and the CMA-ES
    # that it may choose would take its seed from the clock.
    metamodel.float = lambda value: np.asarray(value).item()
    fmin, seeds = cma.fmin, itertools.count(1000 * seed + 1)
    with mock.patch.object(cma, "fmin", seeded_fmin):
        _nevergrad(nevergrad, recorder, space, start, seed)


def _nevergrad(nevergrad: Any, recorder: Recorder, space: Space, start: FloatArray, seed: int) -> None:
    box = nevergrad.p.Array(init=start).set_bounds(0.0, space.high)
    if space.choices is not None:
        box = box.set_integer_casting()
    box.random_state = np.random.RandomState(seed)  # what nevergrad takes
    optimiser = nevergrad.optimizers.NGOpt(box, budget=recorder.budget)
    optimiser.suggest(start)
    while True:
        asked = optimiser.ask()
        (value,) = recorder(np.asarray(asked.value)[None])
        optimiser.tell(asked, -value)


def optuna_tpe(recorder: Recorder, space: Space, start: FloatArray, seed: int) -> None:
    """Search with Optuna's default sampler, the tree-structured Parzen estimator."""
    import optuna
    from optuna.distributions import FloatDistribution, IntDistribution

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    each = FloatDistribution(0.0, 1.0) if space.choices is None else IntDistribution(0, space.choices - 1)
    names = [f"x{index}" for index in range(space.dimension)]
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    kind = float if space.choices is None else int
    study.enqueue_trial({name: kind(value) for name, value in zip(names, start, strict=True)})
    while True:
        trial = study.ask(dict.fromkeys(names, each))
        (value,) = recorder(np.array([[trial.params[name] for name in names]]))
        study.tell(trial, value)


def cma_es(recorder: Recorder, space: Space, start: FloatArray, seed: int) -> None:
    """Search with CMA-ES (cmaes), whole numbers by its variant with margin (Hamano 2022).

    It starts at the start; each time it has converged, it starts again elsewhere.
    """
    import cmaes

    generator = np.random.default_rng([seed, 1])
    bounds = np.tile([0.0, space.high], (space.dimension, 1))
    sigma = space.high / 5
    recorder(start[None])
    mean, attempt = start, 0
    while True:
        run_seed = 1000 * seed + attempt
        if space.choices is None:
            optimiser = cmaes.CMA(mean, sigma, bounds, seed=run_seed)
        else:
            steps = np.ones(space.dimension)
            optimiser = cmaes.CMAwM(mean, sigma, bounds, steps, seed=run_seed)
        while not optimiser.should_stop():
            _cma_generation(optimiser, recorder, space)
        mean, attempt = space.draw(generator, 1)[0], attempt + 1


def _cma_generation(optimiser: Any, recorder: Recorder, space: Space) -> None:
    if space.choices is None:
        points = told = [optimiser.ask() for _ in range(optimiser.population_size)]
    else:
        points, told = zip(*(optimiser.ask() for _ in range(optimiser.population_size)), strict=True)
    values = recorder(np.array(points))
    optimiser.tell([(point, -value) for point, value in zip(told, values, strict=True)])


def deap_ea_simple(recorder: Recorder, space: Space, start: FloatArray, seed: int) -> None:
    """Search with deap's eaSimple at the rates of its tutorial."""
    from deap import algorithms, base, tools

    class Maximised(base.Fitness):  # type: ignore[misc]
        weights = (1.0,)

    class Individual(list[float]):
        def __init__(self, values: Any) -> None:
            super().__init__(values)
            self.fitness = Maximised()

    def evaluate_all(_: Any, individuals: list[Individual]) -> list[tuple[float]]:
        if not individuals:
            return []
        return [(value,) for value in recorder(np.array(individuals, dtype=np.float64)).tolist()]

    toolbox = base.Toolbox()
    rate = 1.0 / space.dimension
    if space.choices is None:
        bounds = {"low": 0.0, "up": 1.0}
        toolbox.register("mate", tools.cxSimulatedBinaryBounded, eta=15.0, **bounds)
        toolbox.register("mutate", tools.mutPolynomialBounded, eta=20.0, indpb=rate, **bounds)
    else:
        toolbox.register("mate", tools.cxTwoPoint)
        toolbox.register("mutate", tools.mutUniformInt, low=0, up=space.choices - 1, indpb=rate)
    toolbox.register("select", tools.selTournament, tournsize=3)
    toolbox.register("evaluate", lambda: None)
    toolbox.register("map", evaluate_all)
    population = [Individual(each) for each in space.first_population(start, seed).tolist()]
    algorithms.eaSimple(population, toolbox, cxpb=0.5, mutpb=0.2, ngen=10 * recorder.budget, verbose=False)


#: By the names that tables use.
TOOLS: Mapping[str, Tool] = {
    "pymoo GA": pymoo_ga,
    "pymoo DE": pymoo_de,
    "nevergrad NGOpt": nevergrad_ngopt,
    "Optuna TPE": optuna_tpe,
    "CMA-ES (cmaes)": cma_es,
    "deap eaSimple": deap_ea_simple,
}
