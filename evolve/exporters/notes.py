"""What to know about an export that its documents do not say."""

from __future__ import annotations

from dataclasses import replace

from evolve.exporters.experts import is_stack
from evolve.exporters.export import average_bits
from evolve.exporters.rounding import Settled
from evolve.exporters.storage import PLAIN


def saved_types(settled: Settled) -> list[str]:
    """Return in which types the layers left alone have to be saved for the bits printed to hold."""
    found = {settled.storages[at].name for at in settled.left_alone}
    if not found:
        return []
    types = " and ".join(name for name in PLAIN if name in found)
    own = "their own types, " if len(found) > 1 else ""
    text = f"The bits printed hold if the layers left alone are saved in {own}{types}"
    if found == {"FP32"}:
        return [f"{text}."]
    layers = tuple(replace(each, bits=32.0) if each.format in PLAIN else each for each in settled.written)
    return [f"{text}; with all in FP32 there are {average_bits(settled.allocation, layers):.3f} a weight."]


def runs_eagerly(settled: Settled) -> list[str]:
    """Return how a model has to be set where stacked experts are quantized one by one as they run."""
    if not any(is_stack(settled.allocation.layers[at]) for at in settled.quantized):
        return []
    call = "model.set_experts_implementation('eager')"
    return [f"Experts stay stacked: call {call} first, so that each of them runs by itself."]


def kept_apart(settled: Settled, target: str) -> list[str]:
    """Return which quantized weights the target keeps once for each of their names."""
    return [
        f"{' and '.join(settled.every_name(at))} share a weight: they are quantized alike, "
        f"but {target} keeps it once for each, and the bits count it once."
        for at in settled.quantized
        if settled.aliases[at]
    ]
