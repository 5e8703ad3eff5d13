"""What toolchains call experts that a network stacks in one parameter, and which layers are their routers.

In checkpoints, and where they are quantized, each expert has modules of its own: ``experts.gate_up_proj`` of
a model in memory is ``experts.0.gate_proj``, ``experts.0.up_proj``, ``experts.1.gate_proj``, … there.

In transformers most routers are modules of classes of their own, over which compressed-tensors and ModelOpt
pass without a word. The recipes of llm-compressor and ModelOpt leave out the others too, so that is what
engines load. An allocation does not say the class, so their names have to tell.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from evolve.allocations import Allocation, LayerChoice

_PARTS = {
    "gate_up_proj": ("gate_proj", "up_proj"),
    **{name: (name,) for name in ("gate_proj", "up_proj", "down_proj")},
}

_WHY = "engines keep the routers of a mixture unquantized"


def is_stack(layer: LayerChoice) -> bool:
    """Return whether a layer's weight is several matrices."""
    return layer.num_experts > 1


def unnumbered(name: str) -> str:
    """Return a name without the number of an expert, which is that of all where they are stacked."""
    return re.sub(r"(\bexperts)\.\d+\.", r"\1.", name)


def split_stack(name: str) -> tuple[str, tuple[str, ...]] | None:
    """Return the path of stacked experts and which modules of each expert their weight holds.

    None where the name is not of the usual kind, so that it cannot be told.
    """
    path, _, last = name.rpartition(".")
    return (path, _PARTS[last]) if last in _PARTS and path.rpartition(".")[2] == "experts" else None


def modules_pattern(name: str) -> str:
    """Return a regular expression for the modules that stacked experts are outside of the network."""
    found = split_stack(name)
    assert found is not None
    path, parts = found
    words = parts[0] if len(parts) == 1 else f"(?:{'|'.join(parts)})"
    return rf"{re.escape(path)}\.\d+\.{words}"


def find_routers(allocation: Allocation) -> Mapping[str, str]:
    """Return the layers that are routers, each with the reason why it is left alone."""
    names = [name for each in allocation.layers for name in _names(each)]
    mixtures = {path[:at] for path in map(_parts, names) for at, part in enumerate(path) if part == "experts"}
    return {
        each.name: _WHY
        for each in allocation.layers
        if any(_is_router(_parts(name), mixtures) for name in _names(each))
    }


def _is_router(path: tuple[str, ...], mixtures: set[tuple[str, ...]]) -> bool:
    """Return whether a module is a router or the one layer of a router, as ``router.classifier`` is."""
    if path[-1] == "shared_expert_gate":
        return True
    return any(
        part == "router" or (part == "gate" and path[:at] in mixtures)
        for at, part in enumerate(path)
        if at >= len(path) - 2
    )


def _parts(name: str) -> tuple[str, ...]:
    return tuple(name.split("."))


def _names(layer: LayerChoice) -> tuple[str, ...]:
    return layer.name, *layer.aliases
