"""Numbers of a predicted loss, fitted to the losses that were measured.

Where a rule may not read the loss curves it predicts them: an expression of cheaper signals stands for the
loss of each layer in each format. On the models of train the curves are known, so the numbers of such an
expression can be fitted to them by nonlinear least squares before the rule is evaluated, as in symbolic
regression (Kommenda, Kronberger, Winkler, Affenzeller & Wagner 2013, "Effects of constant optimization by
nonlinear least squares minimization in symbolic regression"). What a form is worth shows far sooner so than
by drawing numbers.

Shapes: K formats, N layers of all models together, F numbers, R = K · N residuals and one more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from evolve.candidates import Candidate
from evolve.errors import RuleError
from evolve.expressions import Node
from evolve.heuristics import ParameterValues, Rule
from evolve.parameters import Parameter, Sweep
from evolve.profiles import ModelProfile
from evolve.python_source import compile_rule
from evolve.scoring import THRESHOLD
from evolve.templates import Template
from evolve.views import ModelView

FloatArray = NDArray[np.float64]

#: Losses matter down to this part of what each layer may lose where all lose alike and the cliff is just
#: reached. Relative errors count above it, absolute ones below.
_TOLERANCE = 0.1
#: What a loss weighs in formats that are not next to the best one: a form cannot be right everywhere.
_ELSEWHERE = 0.01
#: How dear a common factor of all losses is: a price can take it up, but prices then compare less well.
_FACTOR = 0.1
#: Significant digits of a fitted number.
_DIGITS = 4
#: Steps to the common factor that suits a predicted loss best at most, how long one is, and when it ends.
_MOST_ROUNDS, _LONGEST_STEP, _SHORTEST_STEP = 30, 2.0, 1e-4
#: Evaluations of the least-squares fit at most, and the relative gain below which it ends.
_MOST_STEPS, _LEAST_GAIN = 12, 1e-3
#: Step of the finite differences, in parts of a number's range.
_STEP = 1e-5
_LARGEST = 1e200

_compiled = lru_cache(maxsize=4096)(compile_rule)


class LossFit:
    """Fits predicted losses to those measured on some models.

    A rule that weighs bits by one slot and loss by another chooses by their ratio alone; so loss per weight
    is fitted to measured loss per share of the model's weights.

    Args:
        profiles: The models; those with the formats of the first are used.
        level: The information level that rules may read.
        templates: The code templates, by name.
        allocations: What each model is best allocated, as format indices. Losses count where a rule has to
            choose: in these formats and their neighbours. Everywhere alike where nobody knows.
    """

    def __init__(
        self,
        profiles: Sequence[ModelProfile],
        level: str,
        templates: Mapping[str, Template],
        allocations: Sequence[NDArray[np.uint8]] | None = None,
    ) -> None:
        # Loaded where it is needed, but before a search limits the threads of what is loaded.
        from scipy.optimize import least_squares

        self._least_squares = least_squares
        alike = [place for place, each in enumerate(profiles) if each.formats == profiles[0].formats]
        models = [profiles[place] for place in alike]
        self._view = ModelView(models, level)
        self._templates = templates
        self._tolerance = -math.log(THRESHOLD) * _TOLERANCE / self._view.depth
        losses = ModelView(models, "curves").loss[:, 0, :]
        self._measured = np.log(losses + self._tolerance)
        weights = np.ones(losses.shape)
        if allocations is not None:
            best = np.concatenate([allocations[place] for place in alike]).astype(np.int64)
            weights[np.abs(np.arange(len(losses))[:, None] - best) > 1] = _ELSEWHERE
        self._weights = weights / np.sqrt((weights**2).sum())

    def __call__(self, candidate: Candidate) -> Candidate:
        """Return a candidate with fitted numbers; as it is where it predicts no loss or nothing fits."""
        template = self._templates[candidate.template]
        if template.sweep is None or not template.sweep.loss:
            return candidate
        slots = (template.sweep.loss, template.sweep.weight)
        trees = dict(template.read(candidate).slots)
        nodes = [node for name in slots for node in _expression(trees[name]).walk()]
        names = {node.name for node in nodes if node.operation == "number"}
        numbers = [each for each in template.parameters_of(candidate) if each.name in names]
        if not numbers:
            return candidate
        units = self._fitted(_loss_rule(candidate, template.sweep), numbers)
        if units is None:
            return candidate
        fitted = {each.name: each.from_unit(unit, _DIGITS) for each, unit in zip(numbers, units, strict=True)}
        parameters = tuple((name, fitted.get(name, value)) for name, value in candidate.parameters)
        return replace(candidate, parameters=parameters)

    def error(self, candidate: Candidate) -> float:
        """Return how far a candidate's predicted loss is from the measured one, up to a common factor.

        It is the root mean square of the difference of logarithms; infinite where no loss is predicted.
        """
        sweep = self._templates[candidate.template].sweep
        if sweep is None or not sweep.loss:
            return math.inf
        values = {name: np.array([[value]]) for name, value in candidate.parameters}
        try:
            with np.errstate(all="ignore"):
                predicted = self._predicted(_loss_rule(candidate, sweep), values, 1)[:, 0, :]
                found = self._error(predicted)
        except (ValueError, ArithmeticError, RuleError):
            return math.inf
        return found if math.isfinite(found) else math.inf

    def _error(self, predicted: FloatArray) -> float:
        """Return the error of (K, N) predicted losses at the best factor, found by Gauss-Newton steps."""
        weights = self._weights**2
        factor = 0.0
        for _ in range(_MOST_ROUNDS):
            scaled = predicted * math.exp(factor)
            errors = np.log(scaled + self._tolerance) - self._measured
            slopes = scaled / (scaled + self._tolerance)
            step = -float((weights * errors * slopes).sum() / (weights * slopes * slopes).sum())
            if not abs(step) > _SHORTEST_STEP:
                break
            factor += min(_LONGEST_STEP, max(-_LONGEST_STEP, step))
        return float(np.sqrt((weights * errors**2).sum()))

    def _predicted(self, rule: Rule, values: Mapping[str, FloatArray], count: int) -> FloatArray:
        """Return (K, P, N) predicted losses for (P, 1) values of each number, P being the count."""
        ratio = np.asarray(rule(self._view, ParameterValues(values))) * self._view.param_fraction
        shape = (len(self._measured), count, self._view.num_layers)
        return np.broadcast_to(np.clip(ratio, 0.0, _LARGEST), shape)

    def _fitted(self, rule: Rule, numbers: Sequence[Parameter]) -> list[float] | None:
        """Return the F numbers of least squares, in [0, 1] on their own scales; None where there are none."""
        count = len(numbers)
        start = np.clip([each.to_unit(each.default) for each in numbers], _STEP, 1.0 - _STEP)
        known: dict[bytes, tuple[FloatArray, FloatArray]] = {}

        def at(place: FloatArray) -> tuple[FloatArray, FloatArray]:
            # One call of the rule gives residuals and derivatives, which are asked for one after the other.
            key = place.tobytes()
            if key not in known:
                known.clear()
                known[key] = self._residuals(rule, numbers, place[:count], float(place[count]))
            return known[key]

        try:
            with np.errstate(all="ignore"):
                found = self._least_squares(
                    lambda place: at(place)[0],
                    np.append(start, 0.0),
                    lambda place: at(place)[1],
                    bounds=([0.0] * count + [-np.inf], [1.0] * count + [np.inf]),
                    max_nfev=_MOST_STEPS,
                    ftol=_LEAST_GAIN,
                )
        except (ValueError, ArithmeticError, np.linalg.LinAlgError, RuleError):
            return None  # no finite loss here
        return [float(each) for each in found.x[:count]]

    def _residuals(
        self, rule: Rule, numbers: Sequence[Parameter], units: FloatArray, factor: float
    ) -> tuple[FloatArray, FloatArray]:
        """Return (R,) residuals and their (R, F + 1) derivatives by the numbers and the common factor."""
        steps = np.where(units < 0.5, _STEP, -_STEP)
        rows = np.vstack([units, units + np.diag(steps)])
        values = {each.name: _values(each, rows[:, [place]]) for place, each in enumerate(numbers)}
        predicted = self._predicted(rule, values, len(rows)) * math.exp(factor)
        errors = np.log(predicted + self._tolerance) - self._measured[:, None, :]
        errors *= self._weights[:, None, :]
        errors = errors.swapaxes(0, 1).reshape(len(rows), -1)
        by_number = (errors[1:] - errors[0]) / steps[:, None]
        by_factor = (self._weights * predicted[:, 0] / (predicted[:, 0] + self._tolerance)).ravel()
        derivatives = np.vstack([by_number, by_factor]).T
        last = np.append(np.zeros(len(numbers)), _FACTOR)
        return np.append(errors[0], _FACTOR * factor), np.vstack([derivatives, last])


def _loss_rule(candidate: Candidate, sweep: Sweep) -> Rule:
    """Return what a candidate predicts as a rule: loss per weight."""
    loss, weight = (dict(candidate.slots)[name] for name in (sweep.loss, sweep.weight))
    return _compiled(f"def allocate(model, p):\n    return ({loss}) / ({weight})\n", "<predicted loss>")


def _expression(tree: object) -> Node:
    assert isinstance(tree, Node)  # templates whose slots are something else are refused when they are read
    return tree


def _values(parameter: Parameter, units: FloatArray) -> FloatArray:
    """Return the values of numbers in [0, 1] on the parameter's own scale."""
    low, high = parameter.low, parameter.high
    return low * (high / low) ** units if parameter.scale == "log" else low + units * (high - low)
