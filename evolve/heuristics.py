"""What a plugin declares: a rule, its role and its parameters.

A rule is a function ``allocate(model, p)``. ``model`` is a `ModelView`: the signals of all
layers at once, as arrays of shape (N,). ``p`` holds the rule's parameters, each of shape
(P, 1), so that the same source allocates for P parameter vectors in one call and returns
format indices of shape (P, N), or (N,) where no parameter was used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from evolve.errors import PluginError, RuleError
from evolve.parameters import Parameter, Sweep, linear, log
from evolve.views import ChoiceArray, FloatArray, ModelView

__all__ = ["ROLES", "Declaration", "ModelView", "Parameter", "ParameterValues", "heuristic", "linear", "log"]

Role = Literal["baseline", "published", "discovered", "user"]
ROLES: tuple[Role, ...] = get_args(Role)


class ParameterValues:
    """The parameters of a rule under evaluation, each a (P, 1) array or a float."""

    def __init__(self, values: Mapping[str, FloatArray | float]) -> None:
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> FloatArray:
        raise RuleError(f"the rule reads parameter p.{name}, which is not declared")


Rule = Callable[[ModelView, ParameterValues], ChoiceArray]


@dataclass(frozen=True)
class Declaration:
    """What a Python plugin says about its rule; `heuristic` attaches it to the function."""

    role: Role
    source: str
    parameters: tuple[Parameter, ...]
    sweep: Sweep | None = None


def heuristic(
    *, role: Role = "user", source: str = "", parameters: Sequence[Parameter] = (), sweep: str = ""
) -> Callable[[Rule], Rule]:
    """Declare a function ``allocate(model, p)`` as a heuristic.

    Args:
        role: ``user`` for your own; the shipped ones are ``baseline``, ``published`` or ``discovered``.
        source: Where the rule comes from.
        parameters: Its numbers, made by `linear` and `log`; the search may change them within bounds.
        sweep: Name of the parameter that trades bits for loss; empty where none does.

    Raises:
        PluginError: The role or a parameter is wrong, two parameters have one name, or none is called
            as ``sweep`` says.
    """
    if role not in ROLES:
        raise PluginError("bad heuristic", field="role", expected=f"one of {', '.join(ROLES)}", found=role)
    for each in parameters:
        if not isinstance(each, Parameter):
            raise PluginError(
                "bad heuristic", field="parameters", expected="linear(...) or log(...)", found=each
            )
    names = [each.name for each in parameters]
    if len(set(names)) != len(names):
        raise PluginError("two parameters have one name", field="parameters", found=names)
    if sweep and sweep not in names:
        expected = f"one of {', '.join(names)}" if names else "a rule with parameters"
        raise PluginError("no such parameter", field="sweep", expected=expected, found=sweep)

    def declare(rule: Rule) -> Rule:
        swept = Sweep(sweep) if sweep else None
        declared = Declaration(role, source, tuple(parameters), swept)
        rule.declaration = declared  # type: ignore[attr-defined]
        return rule

    return declare
