"""Everything that `evolve` raises on purpose.

Whoever reads one of these messages is a user, so each says where the fault is,
what was expected, what was found and, where it is not obvious, the cure.
"""

from __future__ import annotations

from typing import Any


class EvolveError(Exception):
    """Base of all errors that are reported as one message, without a traceback."""

    exit_status = 1


class InputError(EvolveError):
    """The user's input is wrong.

    Args:
        problem: What is wrong, in one clause.
        file: The file it is in.
        place: Where in the file: a layer (``layer 3``) or a line (``line 12``).
        field: The field, option or parameter.
        expected: What would be right.
        found: The offending value; shown as ``repr`` and shortened.
        cure: What to do about it.
    """

    exit_status = 2

    def __init__(
        self,
        problem: str,
        *,
        file: object = None,
        place: str | None = None,
        field: str | None = None,
        expected: str | None = None,
        found: Any = None,
        cure: str | None = None,
    ) -> None:
        self.problem = problem
        self.file = None if file is None else str(file)
        self.place = place
        self.field = field
        self.expected = expected
        self.found = found
        self.cure = cure
        super().__init__(self._message())

    def _message(self) -> str:
        where = ", ".join(part for part in (self.file, self.place, self.field) if part)
        text = f"{where}: {self.problem}" if where else self.problem
        if self.expected is not None:
            text += f"; expected {self.expected}"
        if self.found is not None:
            shown = repr(self.found)
            text += f", found {shown if len(shown) <= 80 else shown[:77] + '...'}"
        if self.cure is not None:
            text += f". {self.cure}"
        return text


class ProfileError(InputError):
    """A profile or a data set of profiles is not valid."""


class FormatError(InputError):
    """A number format is unknown or badly described."""


class PluginError(InputError):
    """A seed heuristic cannot be loaded or does not keep the contract."""


class TemplateError(PluginError):
    """A code template, a slot or an expression in a slot is not valid."""


class RunError(InputError):
    """A run is missing, exists already or cannot be continued."""


class BudgetError(InputError):
    """A budget or a floor is badly written, or no allocation keeps it."""


class NetworkError(InputError):
    """A real network, its data or what runs it cannot be used."""


class RuleError(EvolveError):
    """A rule failed while it allocated; the engine turns this into a status, never into a crash."""


class SignalError(RuleError):
    """A rule read a signal above the information level of the run."""
