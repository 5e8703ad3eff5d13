"""From a configuration to everything a search needs, loaded and checked."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from evolve import __version__
from evolve.batches import fingerprints, spending
from evolve.candidates import Offspring
from evolve.configuration import RunConfig
from evolve.datasets import Dataset, find_dataset
from evolve.errors import InputError, ProfileError, RunError
from evolve.evaluation import Arena, SearchArena, optimum_of
from evolve.extensions import Extension
from evolve.grammar import vocabulary
from evolve.loss_fitting import LossFit
from evolve.objectives import Budgets, best_losses, parse_objective
from evolve.plugin_files import general_templates
from evolve.plugins import Catalogue, load_catalogue
from evolve.price_fitting import PriceFit
from evolve.profiles import LAYER_TYPES
from evolve.search import STRATEGIES, find_strategy, make_strategy
from evolve.search.base import OPERATORS, Problem, Spread, Strategy
from evolve.search.islands import StrategyFactory
from evolve.search.plugin_strategies import PluginStrategy
from evolve.templates import Template
from evolve.views import measured_everywhere

#: Rules that allocate alike on so many train models count as alike. What is fitted is alike in much, and
#: would pass for known on four models that are far from enough to tell good rules apart.
_PROBES, _PROBES_FITTED = 4, 16
#: Predicted losses are fitted on the first train models with so many layers: hundreds tell a dozen numbers.
_FITTED_LAYERS = 750
#: What resolving adds to a configuration.
_RESOLVED = ("seeds", "hashes", "version")


@dataclass(frozen=True)
class Setup:
    """A configuration with all it refers to, loaded."""

    config: RunConfig
    dataset: Dataset
    catalogue: Catalogue
    problem: Problem
    arena: SearchArena

    def new_strategy(self, spread: Spread | None = None) -> Strategy:
        """Return the strategy of the configuration, at its start; it may spread work over processes.

        Raises:
            PluginError: It comes from a plugin and cannot be made; its methods raise so at their faults.
        """
        # The last word of islands:8:mine is the strategy on the islands.
        plugin = self.catalogue.strategies.get(self.config.strategy.split(":")[-1])
        if plugin is None:
            return self.plain_strategy(spread)
        return PluginStrategy(plugin, self.problem, partial(self.plain_strategy, spread))

    def plain_strategy(self, spread: Spread | None = None) -> Strategy:
        """Return the strategy as it was written, whoever has written it."""
        problem = replace(self.problem, spread=spread)
        return make_strategy(self.config.strategy, problem, _makers(self.catalogue))

    def resolved(self) -> dict[str, Any]:
        """Return the configuration with the hashes of data and heuristics: what ``config.json`` holds."""
        return {
            **self.config.to_json(),
            "seeds": [each.change for each in self.problem.seeds],
            "hashes": {
                "datasets": self.dataset.content_hash,
                "heuristics": self._catalogue_hash(),
                **self._plugins_hash(),
            },
            "version": __version__,
        }

    def _catalogue_hash(self) -> str:
        digest = hashlib.sha256()
        for name, template in sorted(self.problem.templates.items()):
            digest.update(f"{name}\0{template.body}\0{template.slots}\0{template.parameters}\0".encode())
            if self.arena.budgets is not None or self.config.fit:
                digest.update(f"{template.sweep}\0".encode())
        for seed in self.problem.seeds:
            digest.update(seed.candidate.id.encode())
        return digest.hexdigest()

    def _plugins_hash(self) -> dict[str, str]:
        """Return the hash of the operators and strategies from plugins, where the run uses any."""
        parts = self.config.strategy.split(":")
        used: list[Extension] = [
            each for name, each in self.problem.plugins.items() if self.problem.operators[name] > 0
        ]
        used += [each for name, each in self.catalogue.strategies.items() if name in parts]
        texts = [(each.kind, each.name, each.text) for each in used]
        return {"plugins": hashlib.sha256(repr(texts).encode()).hexdigest()} if texts else {}


def prepare_run(config: RunConfig, catalogue: Catalogue | None = None) -> Setup:
    """Load what a configuration refers to.

    Raises:
        InputError: The data set, a heuristic, an operator or the strategy is missing or wrong, or
            there is nothing to train on.
    """
    catalogue = load_catalogue() if catalogue is None else catalogue
    _check_strategy(config.strategy, catalogue)
    weights = _operator_weights(config, catalogue)
    dataset = find_dataset(config.datasets)
    if not dataset.train:
        raise ProfileError(
            "there is nothing to train on", file=config.datasets, expected="at least one profile in train"
        )
    budgets = parse_objective(config.objective)
    if budgets is not None:
        _check_kept(budgets, dataset)
    seeds: dict[str, Offspring] = {}
    for each in catalogue.select(config.start_from):
        if budgets is not None and each.template.sweep_of(each.candidate) is None:
            continue
        seeds.setdefault(each.candidate.id, Offspring(each.candidate, "seed", (), each.name))
    if not seeds:
        expected = "roles or names"
        if budgets is not None:
            expected += " of rules with a parameter that trades bits for loss"
        raise InputError(
            "no seed heuristics", field="start_from", expected=expected, found=list(config.start_from)
        )
    names = [name for each in (*dataset.train, *dataset.valid) for name in each.format_names]
    everywhere = [
        name
        for name in dict.fromkeys(names)
        if all(name in each.format_names for each in (*dataset.train, *dataset.valid))
    ]
    if not everywhere:
        raise ProfileError("the models have no format in common", file=config.datasets, field="formats")
    templates = _templates_in_use(catalogue, list(seeds.values()), swept=budgets is not None)
    present = {name for each in dataset.train for name in each.layer_type}
    types = tuple(name for name in LAYER_TYPES if name in present)
    fit = _loss_fit(config, dataset, templates, swept=budgets is not None)
    # Within budgets a price is swept anyway.
    fits_prices = config.fit and budgets is None
    probe = Arena(dataset.train[: _PROBES_FITTED if config.fit else _PROBES], config.signals, budgets)
    problem = Problem(
        tuple(seeds.values()),
        templates,
        vocabulary(
            tuple(everywhere),
            config.signals,
            types=types,
            measured=measured_everywhere((*dataset.train, *dataset.valid)),
        ),
        config.population,
        config.seed,
        partial(fingerprints, templates=templates, probe=probe),
        partial(spending, templates=templates, probe=probe),
        weights,
        {name: each for name, each in catalogue.operators.items() if name in weights},
        fit,
        PriceFit(dataset.train, config.signals, templates) if fits_prices else None,
    )
    arena = SearchArena(dataset, config.signals, budgets, config.copies)
    return Setup(config, dataset, catalogue, problem, arena)


def _check_kept(budgets: Budgets, dataset: Dataset) -> None:
    """Raise `InputError` at a budget that no train model can keep, for it tells nothing of a rule."""
    for place, bits in enumerate(budgets.bits):
        if all(math.isnan(best_losses(each, budgets)[place]) for each in dataset.train):
            sizes = [(each.num_params[:, None] * each.bits_table).min(axis=1).sum() for each in dataset.train]
            least = min(size / each.total_params for size, each in zip(sizes, dataset.train, strict=True))
            raise InputError(
                "no train model can keep this budget",
                field="objective",
                expected=f"at least {least:g} bits",
                found=bits,
            )


def _loss_fit(
    config: RunConfig, dataset: Dataset, templates: Mapping[str, Template], swept: bool
) -> LossFit | None:
    if not (config.fit and config.predicts):
        return None
    before = np.cumsum([0, *(each.num_layers for each in dataset.train)])
    count = int(np.searchsorted(before, _FITTED_LAYERS))
    models = dataset.train[:count]
    # Within budgets every format is the best one now and then.
    best = None if swept else [optimum_of(each).allocation for each in models]
    return LossFit(models, config.signals, templates, best)


def _makers(catalogue: Catalogue) -> dict[str, StrategyFactory]:
    return {name: each.make for name, each in catalogue.strategies.items()}


def _check_strategy(name: str, catalogue: Catalogue) -> None:
    for part in name.split(":"):
        if part not in STRATEGIES:
            catalogue.check_not_broken(part)
    find_strategy(name, _makers(catalogue))


def _operator_weights(config: RunConfig, catalogue: Catalogue) -> dict[str, float]:
    """Return the weight of each operator, the built-in ones first, in an order of no one's making."""
    known = {**OPERATORS, **catalogue.operators}
    for name in config.operators:
        if name not in known:
            catalogue.check_not_broken(name)
            expected = f"one of {', '.join(known)}"
            raise InputError("unknown operator", field="operators", expected=expected, found=name)
    used = [name for name in known if name in OPERATORS or name in config.operators]
    return {name: float(config.operators.get(name, 0.0)) for name in used}


def _templates_in_use(
    catalogue: Catalogue, seeds: Sequence[Offspring], swept: bool = False
) -> dict[str, Template]:
    """The general templates and those of the seeds: never one that only a rule not started from uses.

    Args:
        catalogue: All there are.
        seeds: What the search starts from.
        swept: Whether general templates are of use only with a parameter that trades bits for loss.
    """
    general = [name for name, each in general_templates().items() if each.sweep is not None or not swept]
    names = [*general, *(each.candidate.template for each in seeds)]
    return {name: catalogue.templates[name] for name in dict.fromkeys(names)}


def check_unchanged(setup: Setup, stored: Mapping[str, Any]) -> None:
    """Raise `RunError` if data or heuristics are not those the run was started with."""
    for name, value in setup.resolved()["hashes"].items():
        if stored.get("hashes", {}).get(name) != value:
            raise RunError(
                f"the {name} have changed since this run was started",
                field=name,
                expected=stored.get("hashes", {}).get(name),
                found=value,
                cure="Restore them, or start a new run.",
            )


def stored_config(stored: Mapping[str, Any]) -> RunConfig:
    """Return the configuration of a run from its ``config.json``."""
    values = {key: value for key, value in stored.items() if key not in _RESOLVED}
    return RunConfig.from_json({"fit": False, **values})
