"""Evaluates rules on models: many parameter vectors of one source in one call.

A rule that raises, returns a wrong shape or names a wrong format has failed; that is a value
with a reason, and costs no other candidate anything.
"""

from __future__ import annotations

import hashlib
import re
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from types import FrameType

import numpy as np
import numpy.typing as npt

from evolve.candidates import SplitScore
from evolve.datasets import Dataset
from evolve.errors import RuleError, SignalError, TemplateError
from evolve.heuristics import ParameterValues, Rule
from evolve.optimum import Optimum, optimum
from evolve.profiles import ModelProfile
from evolve.scoring import ScoreTable, prepare
from evolve.templates import compile_rule
from evolve.views import ChoiceArray, ModelView

FloatArray = npt.NDArray[np.float64]
#: Elements of the largest array a rule makes at once, so that it stays in the processor's cache;
#: more parameter vectors go in chunks.
_CHUNK_ELEMENTS = 70_000
#: Seconds a rule may take for one call; only a plugin with an endless loop gets there.
TIME_LIMIT = 20.0
#: Characters kept of what a rule says when it raises.
_MOST_SAID = 500


#: A source is compiled once, however many calls it takes to evaluate all its parameter vectors.
_compiled = lru_cache(maxsize=4096)(compile_rule)


@lru_cache(maxsize=1024)
def _optimum_of(profile: ModelProfile) -> Optimum:
    """Return a model's optimum, computed once a process: equal profiles are equal by their content."""
    return optimum(profile.num_params, profile.bits, profile.sensitivity)


@dataclass(frozen=True)
class Failure:
    """Why a rule failed: its kind, for counting, and the reason in words."""

    kind: str
    reason: str


@dataclass(frozen=True)
class ModelScores:
    """How one rule does on each of M models: arrays of shape (M,)."""

    compression_ratio: FloatArray
    accuracy_retention: FloatArray
    avg_bits: FloatArray
    fitness: FloatArray


@dataclass(frozen=True)
class Task:
    """Parameter vectors to evaluate with one source.

    Attributes:
        source: Python that defines ``allocate``.
        file: Where it comes from, for messages.
        names: Names of the F parameters.
        values: (P, F) their values.
    """

    source: str
    file: str
    names: tuple[str, ...]
    values: FloatArray


class Arena:
    """The models that rules are evaluated on, prepared once.

    Args:
        profiles: M models.
        level: The information level that rules may read.
    """

    def __init__(self, profiles: Sequence[ModelProfile], level: str = "curves") -> None:
        self.profiles = tuple(profiles)
        self.level = level
        self._groups = [
            (np.array(members), _Stack([self.profiles[index] for index in members], level))
            for members in self._by_formats()
        ]

    def _by_formats(self) -> list[list[int]]:
        found: dict[object, list[int]] = {}
        for index, profile in enumerate(self.profiles):
            found.setdefault(profile.formats, []).append(index)
        return list(found.values())

    @cached_property
    def optima(self) -> tuple[Optimum, ...]:
        """The proven optimum of each model."""
        return tuple(_optimum_of(each) for each in self.profiles)

    @cached_property
    def optimum_fitness(self) -> FloatArray:
        """(M,) fitness of each model's optimum."""
        return np.array([each.fitness for each in self.optima])

    def evaluate(self, task: Task) -> list[ModelScores | Failure]:
        """Evaluate P parameter vectors of one source; one result a vector, in order."""
        rule = _compile(task)
        if isinstance(rule, Failure):
            return [rule] * len(task.values)
        results: list[ModelScores | Failure] = []
        for start in range(0, len(task.values), self._chunk):
            results += self._evaluate_chunk(rule, task.names, task.values[start : start + self._chunk])
        return results

    def behaviours(self, task: Task) -> list[str]:
        """Fingerprint what P parameter vectors of one source allocate, without scoring it.

        Returns:
            P texts, equal where the allocations of all models are equal, or where the rules
            fail for the same reason.
        """
        rule = _compile(task)
        if isinstance(rule, Failure):
            return [rule.reason] * len(task.values)
        return self._behaviours(rule, task.names, task.values)

    def _behaviours(self, rule: Rule, names: tuple[str, ...], values: FloatArray) -> list[str]:
        digests = [hashlib.blake2b(digest_size=12) for _ in values]
        for _, stack in self._groups:
            choices = allocate(rule, stack.view, names, values)
            if isinstance(choices, Failure):
                if len(values) == 1:
                    return [choices.reason]
                # As in evaluation: a fingerprint must not depend on who else was asked for.
                return [self._behaviours(rule, names, row[None])[0] for row in values]
            for digest, row in zip(digests, choices, strict=True):
                digest.update(row)
        return [digest.hexdigest() for digest in digests]

    @property
    def _chunk(self) -> int:
        widest = max(stack.view.num_layers * len(stack.view.formats) for _, stack in self._groups)
        return max(1, _CHUNK_ELEMENTS // widest)

    def _evaluate_chunk(
        self, rule: Rule, names: tuple[str, ...], values: FloatArray
    ) -> list[ModelScores | Failure]:
        table = np.empty((4, len(values), len(self.profiles)))
        for members, stack in self._groups:
            choices = allocate(rule, stack.view, names, values)
            if isinstance(choices, Failure):
                if len(values) == 1:
                    return [choices]
                # Whose fault it is shows only when each vector is alone.
                alone = [self._evaluate_chunk(rule, names, row[None]) for row in values]
                return [result for (result,) in alone]
            scores = stack.table.score(choices)
            for row, metric in enumerate(
                (scores.compression_ratio, scores.accuracy_retention, scores.avg_bits, scores.fitness)
            ):
                table[row][:, members] = metric
        return [ModelScores(*table[:, index]) for index in range(len(values))]


class _Stack:
    """Models with the same formats, side by side."""

    def __init__(self, profiles: Sequence[ModelProfile], level: str) -> None:
        self.view = ModelView(profiles, level)
        self.table: ScoreTable = prepare(
            np.concatenate([each.num_params for each in profiles]),
            profiles[0].bits,
            np.concatenate([each.sensitivity for each in profiles]),
            self.view.offsets,
        )


def _compile(task: Task) -> Rule | Failure:
    try:
        return _compiled(task.source, task.file or "<rule>")
    except TemplateError as error:
        return template_failure("does not compile", error)


def template_failure(kind: str, error: TemplateError) -> Failure:
    """Return a template's error as a failure that names the file without its folder, which is no result."""
    text = str(error)
    if error.file:
        text = text.replace(error.file, Path(error.file).name)
    return Failure(kind, _printable(text))


def _printable(text: str) -> str:
    """Return a text that every journal can hold and that is the same in every run: without addresses."""
    text = re.sub(r"\bat 0x[0-9a-fA-F]+", "at 0x…", text).encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= _MOST_SAID else text[: _MOST_SAID - 1] + "…"


def _words_of(error: BaseException) -> str:
    """Return what a rule raised, in words."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - a rule's own exception can fail in any way too
        text = ""
    name = type(error).__name__
    return _printable(f"{name}: {text}" if text else name)


class _TookTooLong(BaseException):
    """Ends a rule; no ``Exception``, for those a rule may catch."""


def allocate(
    rule: Rule, view: ModelView, names: tuple[str, ...], values: FloatArray
) -> ChoiceArray | Failure:
    """Call a rule and check what it returns.

    Args:
        rule: The compiled ``allocate``.
        view: N layers with K formats.
        names: Names of F parameters.
        values: (P, F) parameter vectors.

    Returns:
        (P, N) format indices, or why there are none.
    """
    parameters = ParameterValues({name: values[:, [index]] for index, name in enumerate(names)})
    try:
        with _time_limit(TIME_LIMIT), np.errstate(all="ignore"):
            found = rule(view, parameters)
    except SignalError as error:
        return Failure("signal above the level", str(error))
    except RuleError as error:
        return Failure("rule broken", str(error))
    except _TookTooLong:
        return Failure("rule broken", f"the rule took longer than {TIME_LIMIT:g} s")
    except RecursionError:
        return Failure("raised RecursionError", "RecursionError: the rule calls itself without end")
    except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever a rule raises is its failure
        return Failure(f"raised {type(error).__name__}", _words_of(error))
    return _checked(found, len(values), view)


def _checked(found: object, count: int, view: ModelView) -> ChoiceArray | Failure:
    try:
        choices = np.asarray(found)
    except Exception as error:  # noqa: BLE001 - what a rule returns can run code of its own
        return Failure("wrong type", f"expected an array of format indices: {_words_of(error)}")
    if choices.dtype.kind not in "iu":
        return Failure(
            "wrong type",
            f"expected format indices from model.where, select, cheapest or narrowest, found {choices.dtype}",
        )
    if choices.shape not in ((view.num_layers,), (1, view.num_layers), (count, view.num_layers)):
        return Failure(
            "wrong shape",
            f"expected (N,) = ({view.num_layers},) or (P, N) = ({count}, {view.num_layers}), "
            f"found {choices.shape}",
        )
    for extreme in (choices.min(), choices.max()):
        if not 0 <= extreme < len(view.formats):
            return Failure(
                "wrong format", f"expected format indices 0 to {len(view.formats) - 1}, found {extreme}"
            )
    full = np.broadcast_to(choices.astype(np.uint8), (count, view.num_layers))
    return np.ascontiguousarray(full)


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise `_TookTooLong` in the block after some seconds, where the platform has interval timers."""
    main = threading.current_thread() is threading.main_thread()
    if not main or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise _TookTooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def optimum_share(fitness: FloatArray, optima: FloatArray) -> FloatArray:
    """Return (M,) fitness / optimum; 1 where the optimum itself is 0, for then nothing better can be had."""
    return np.divide(fitness, optima, out=np.ones_like(fitness), where=optima > 0)


def summarise(scores: ModelScores, optima: FloatArray, members: Sequence[int] | slice) -> SplitScore:
    """Average a rule's scores over some models.

    The objective is the mean share of each model's optimum, so that no model outweighs another;
    with one model it orders rules as the fitness does.

    Args:
        scores: The rule's scores on M models.
        optima: (M,) fitness of the optima.
        members: Which models.
    """
    ratios = optimum_share(scores.fitness[members], optima[members])
    mean_ratio = float(ratios.mean())
    return SplitScore(
        objective=mean_ratio,
        fitness=float(scores.fitness[members].mean()),
        compression_ratio=float(scores.compression_ratio[members].mean()),
        accuracy_retention=float(scores.accuracy_retention[members].mean()),
        avg_bits=float(scores.avg_bits[members].mean()),
        optimum_ratio=mean_ratio,
        worst_ratio=float(ratios.min()),
    )


class SearchArena(Arena):
    """The arena of a search: the models of train and valid, never those of test."""

    def __init__(self, dataset: Dataset, level: str) -> None:
        # One file that serves as train and valid is evaluated once.
        self.shared = dataset.train == dataset.valid
        super().__init__(dataset.train if self.shared else (*dataset.train, *dataset.valid), level)
        self._train = slice(0, len(dataset.train))
        self._valid = self._train if self.shared else slice(len(dataset.train), None)
        self._has_valid = bool(dataset.valid)

    def summaries(self, scores: ModelScores) -> tuple[SplitScore, SplitScore | None]:
        """Return the scores on train, and on valid if there is one."""
        train = summarise(scores, self.optimum_fitness, self._train)
        if not self._has_valid:
            return train, None
        return train, train if self.shared else summarise(scores, self.optimum_fitness, self._valid)
