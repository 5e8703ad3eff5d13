"""Calls a rule and checks what it returns: many parameter vectors of one source in one call.

A rule that raises, returns a wrong shape or names a wrong format has failed; that is a value
with a reason, and costs no other candidate anything.
"""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import FrameType

import numpy as np
import numpy.typing as npt

from evolve.errors import RuleError, SignalError, TemplateError
from evolve.heuristics import ParameterValues, Rule
from evolve.parameters import Parameter
from evolve.python_source import compile_rule
from evolve.views import ChoiceArray, ModelView

FloatArray = npt.NDArray[np.float64]
#: Seconds a rule may take for one call; only a plugin with an endless loop gets there.
TIME_LIMIT = 20.0
#: Characters kept of what a rule says when it raises.
_MOST_SAID = 500


#: A source is compiled once, however many calls it takes to evaluate all its parameter vectors.
_compiled = lru_cache(maxsize=4096)(compile_rule)


@dataclass(frozen=True)
class Failure:
    """Why a rule failed: its kind, for counting, and the reason in words."""

    kind: str
    reason: str

    def __post_init__(self) -> None:
        # Two halves of a surrogate pair side by side become one character in JSON: they are one from here on.
        whole = self.reason.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        object.__setattr__(self, "reason", whole)


@dataclass(frozen=True)
class Task:
    """Parameter vectors to evaluate with one source.

    Attributes:
        source: Python that defines ``allocate``.
        file: Where it comes from, for messages.
        names: Names of the F parameters.
        values: (P, F) their values.
        sweep: The parameter that trades bits for loss, with the bounds it is swept over; None where the
            rule has none, or nothing needs it.
    """

    source: str
    file: str
    names: tuple[str, ...]
    values: FloatArray
    sweep: Parameter | None = None


def compile_task(task: Task) -> Rule | Failure:
    """Return the function of a source, or why there is none."""
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
