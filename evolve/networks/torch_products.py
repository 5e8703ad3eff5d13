"""Finds parameters that a PyTorch network multiplies its data with, whatever they are called.

Names do not tell: the experts of a mixture are one parameter of three axes, (experts, out, in) in most
models and (experts, in, out) in some, and a matrix of someone's own module may be (in, out) too. What it is
multiplied with tells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

_aten = torch.ops.aten
#: Where matrix products have their two factors.
_FACTORS: Mapping[Any, tuple[int, int]] = {
    _aten.mm: (0, 1),
    _aten.bmm: (0, 1),
    _aten.addmm: (1, 2),
    _aten.baddbmm: (1, 2),
    _aten._grouped_mm: (0, 1),
}
#: Copies that leave the axes where they are.
_COPIES = (_aten.clone, _aten._to_copy, _aten.detach, _aten.alias, _aten.index_select)


class ProductAxes(NamedTuple):
    """Which axes of a parameter a matrix product uses.

    Attributes:
        channels: The axis of the output channels.
        inputs: The axis that is summed over.
    """

    channels: int
    inputs: int


def find_products(
    parameters: Mapping[str, torch.Tensor], run: Callable[[], object]
) -> dict[str, ProductAxes]:
    """Return how parameters are multiplied with data, by name; those that are not are left out.

    Parameters are followed through views, casts and the choice of rows, not through arithmetic. Where one
    is used in several ways, the first counts. Those of more than two axes are stacked along the first, or
    nothing is known of them.

    Args:
        parameters: All parameters of a network by name, for a product of two of them is no layer.
        run: Runs the network.
    """
    watch = _Watch(parameters)
    with torch.no_grad(), watch:
        run()
    return {name: axes for name, axes in watch.found.items() if parameters[name].ndim == 2 or 0 not in axes}


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call] # torch's own metaclass
    def __init__(self, parameters: Mapping[str, torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call] # torch's
        self.found: dict[str, ProductAxes] = {}
        # What is a parameter, or a view or copy of one: its name, and which of its axes each axis is.
        self._followed: Any = WeakTensorKeyDictionary()
        for name, each in parameters.items():
            self._followed[each] = name, tuple(range(each.ndim))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operator, and note what it does with parameters."""
        results = func(*args, **(kwargs or {}))
        kind = func.overloadpacket
        if kind in _FACTORS:
            self._note(*(args[place] for place in _FACTORS[kind]))
        elif args and isinstance(args[0], torch.Tensor) and args[0] in self._followed:
            name, axes = self._followed[args[0]]
            for each in tree_leaves(results):
                if isinstance(each, torch.Tensor) and each is not args[0]:
                    moved = _moved(kind, args, axes, each)
                    if moved is not None:
                        self._followed[each] = name, moved
        return results

    def _note(self, left: torch.Tensor, right: torch.Tensor) -> None:
        known = [self._followed.get(each) for each in (left, right)]
        if (known[0] is None) == (known[1] is None):
            return
        name, axes = known[0] or known[1]
        inputs, channels = axes[-2:] if known[0] is None else axes[-2:][::-1]
        if None not in (inputs, channels) and inputs != channels:
            self.found.setdefault(name, ProductAxes(channels, inputs))


def _moved(
    kind: Any, args: tuple[Any, ...], axes: tuple[int | None, ...], result: torch.Tensor
) -> tuple[int | None, ...] | None:
    """Return which axes of a parameter those of an operator's result are; None if it is no view or copy."""
    source = args[0]
    if kind in _COPIES:
        return axes
    if kind is _aten.index:
        # Chosen by the first axis, as experts are for each token.
        first, *others = args[1]
        return None if others or first is None else (*(None,) * first.ndim, *axes[1:])
    if result.untyped_storage()._cdata != source.untyped_storage()._cdata:
        return None
    # In a view an axis steps along the coarsest axis of the source whose own step is not longer.
    steps = sorted(
        (
            (step, axis)
            for step, size, axis in zip(source.stride(), source.shape, axes, strict=True)
            if size > 1 and step
        ),
        key=lambda pair: pair[0],
    )

    def axis_of(step: int, size: int) -> int | None:
        fitting = [axis for own, axis in steps if own <= step]
        return fitting[-1] if fitting and size > 1 and step else None

    return tuple(axis_of(*pair) for pair in zip(result.stride(), result.shape, strict=True))
