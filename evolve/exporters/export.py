"""What goes into an export and what comes out of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from evolve.allocations import Allocation
from evolve.errors import InputError
from evolve.fields import near_match


@dataclass(frozen=True)
class Options:
    """What a user may set for an export.

    Attributes:
        formats: Names of the only quantized formats to write; empty for all that the target has.
        names: What the target calls a layer, by the layer's name; the others keep their names.
        architecture: The architecture in llama.cpp's words, which turns names into those of GGUF.
        network: The ONNX model, in which initializers and nodes are looked up.
    """

    formats: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict)
    architecture: str | None = None
    network: Path | None = None


@dataclass(frozen=True)
class Rounding:
    """A layer whose format the target does not have.

    Attributes:
        layer: The layer's name in the allocation.
        asked: The format of the allocation.
        asked_bits: Its bits per weight.
        written: The format that was written.
        written_bits: Its bits per weight.
        why: The reason, in words.
    """

    layer: str
    asked: str
    asked_bits: float
    written: str
    written_bits: float
    why: str


@dataclass(frozen=True)
class Written:
    """What a layer got.

    Attributes:
        layer: The layer's name in the allocation.
        target_name: What the target calls it.
        format: The format.
        bits: Bits per weight in it, scales and zero points counted.
    """

    layer: str
    target_name: str
    format: str
    bits: float


@dataclass(frozen=True)
class Export:
    """An allocation in a target's form.

    Attributes:
        target: The target's name.
        documents: Texts by file name.
        layers: What each layer got, (L,).
        roundings: The layers that did not get what the allocation asked for, in order.
        notes: What to know before using the documents, a sentence each.
        avg_bits: Bits per weight of all layers as they were written.
    """

    target: str
    documents: Mapping[str, str]
    layers: tuple[Written, ...]
    roundings: tuple[Rounding, ...]
    notes: tuple[str, ...]
    avg_bits: float


@dataclass(frozen=True)
class Target:
    """A toolchain that allocations can be exported to.

    Attributes:
        name: What the command line calls it.
        export: Writes an allocation in the target's form.
        formats: All formats it can store weights in, quantized ones first.
        kinds: The layer types whose weights it quantizes.
        file: The document's file name.
        extra: What has to be installed to write it, where that is more than the base; empty else.
        usage: How the document is used, in one line.
    """

    name: str
    export: Callable[[Allocation, Options], Export]
    formats: tuple[str, ...]
    kinds: tuple[str, ...]
    file: str
    extra: str
    usage: str


def check_options(allocation: Allocation, options: Options, target: Target) -> None:
    """Refuse names of layers that are not there, and formats of which the target has none.

    Raises:
        InputError: Naming the layer or the formats.
    """
    if options.formats and not set(options.formats) & set(target.formats):
        words = f"some of {', '.join(target.formats)}"
        raise InputError(
            f"{target.name} has none of these", field="--formats", expected=words, found=options.formats
        )
    known = dict.fromkeys(name for each in allocation.layers for name in (each.name, *each.aliases))
    for name in options.names:
        if name not in known:
            cure = near_match(name, known) if len(known) < 50 else None
            raise InputError("no such layer", field="network-names", found=name, cure=cure)


def average_bits(allocation: Allocation, layers: tuple[Written, ...]) -> float:
    """Return the bits per weight of all layers as they were written."""
    pairs = zip(allocation.layers, layers, strict=True)
    return math.fsum(layer.num_params * each.bits for layer, each in pairs) / allocation.total_params
