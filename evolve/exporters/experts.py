"""What toolchains call the experts that a network keeps stacked in one parameter.

In checkpoints, and where they are quantized, each expert has modules of its own: ``experts.gate_up_proj`` of
a model in memory is ``experts.0.gate_proj``, ``experts.0.up_proj``, ``experts.1.gate_proj``, … there.
"""

from __future__ import annotations

import re

from evolve.allocations import LayerChoice

_PARTS = {
    "gate_up_proj": ("gate_proj", "up_proj"),
    **{name: (name,) for name in ("gate_proj", "up_proj", "down_proj")},
}


def is_stack(layer: LayerChoice) -> bool:
    """Return whether a layer's weight is several matrices."""
    return layer.num_experts > 1


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
