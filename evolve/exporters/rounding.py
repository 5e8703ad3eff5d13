"""The one rule by which every target rounds a format it does not have.

1. The format itself, where the target has it; how it was clipped is no part of how it is stored.
2. Else no code of fewer bits, unless nothing wider exists.
3. Where finer scales were asked for, no single scale for a whole tensor unless its code has two bits more;
   and leaving a layer alone only where no quantized format is left.
4. Of these the fewest bits a code.
5. Among equals: scales no coarser than asked for (groups, channels, tensor); the same family (integer,
   float, codebook); not fewer bits in all, scales counted; the same symmetry; groups no larger than asked
   for; the nearest number of bits; the target's own order.

Layers that are tied, or that engines fuse, get one format: the widest that any of them asks for, rounded to
one that all of them can have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from evolve.allocations import Allocation, LayerChoice
from evolve.errors import InputError
from evolve.exporters.experts import unnumbered
from evolve.exporters.export import Export, Options, Rounding, Target, Written, average_bits, check_options
from evolve.exporters.groups import format_groups
from evolve.exporters.storage import (
    PLAIN,
    Storage,
    asked_storage,
    every_name,
    inner_modules,
    is_clipped,
    plain_storages,
    stored_name,
    unknown_formats,
)
from evolve.quantizers import QUANTIZERS

Formats = Callable[[LayerChoice], Sequence[Storage]]
"""Tells how a target can store a layer, the ways it prefers first."""

_EXACT = 1e-9
#: What one scale for a whole tensor costs: the widest channel sets the steps of all.
_WHOLE_TENSOR = 2


@dataclass(frozen=True)
class Settled:
    """What every layer gets.

    Attributes:
        allocation: What was asked for.
        names: What the target calls each layer, (L,).
        aliases: What it calls the other modules that use each layer's weight, (L,).
        storages: How each layer is stored, (L,).
        leads: The position of the layer whose wish decided, (L,).
        roundings: The layers that did not get what they asked for.
        unknown: The formats of which nothing but the bits was known.
    """

    allocation: Allocation
    names: tuple[str, ...]
    aliases: tuple[tuple[str, ...], ...]
    storages: tuple[Storage, ...]
    leads: tuple[int, ...]
    roundings: tuple[Rounding, ...]
    unknown: tuple[str, ...] = ()

    @property
    def quantized(self) -> tuple[int, ...]:
        """Positions of the layers that are quantized."""
        return tuple(at for at, each in enumerate(self.storages) if each.name not in PLAIN)

    @property
    def left_alone(self) -> tuple[int, ...]:
        """Positions of the layers that are not quantized."""
        return tuple(at for at, each in enumerate(self.storages) if each.name in PLAIN)

    @property
    def written(self) -> tuple[Written, ...]:
        """What each layer gets, (L,)."""
        rows = zip(self.allocation.layers, self.names, self.storages, strict=True)
        return tuple(Written(layer.name, name, each.name, each.bits) for layer, name, each in rows)

    def every_name(self, at: int) -> tuple[str, ...]:
        """Return what the target calls the modules that use a layer's weight."""
        return self.names[at], *self.aliases[at]

    def export(self, target: Target, text: str, notes: Sequence[str] = ()) -> Export:
        """Return the export of a target's one document."""
        words = f"Formats that are unknown here, taken by their bits: {', '.join(self.unknown)}."
        return Export(
            target=target.name,
            documents={target.file: text},
            layers=self.written,
            roundings=self.roundings,
            notes=(*notes, *([words] if self.unknown else []), target.usage),
            avg_bits=average_bits(self.allocation, self.written),
        )


def nearest(asked: Storage, supported: Sequence[Storage]) -> Storage:
    """Return the storage that is nearest by the rule above, the first of equals."""

    def distance(each: Storage) -> tuple[bool | float, ...]:
        coarser = max(_coarseness(each) - _coarseness(asked), 0)
        only_whole = coarser > 0 and each.granularity == "tensor"
        larger = 1.0
        groups = each.granularity, asked.granularity
        # Those of another family are hardly comparable: NF4 in groups of 64 keeps as much as INT4 of 32.
        if each.family == asked.family and isinstance(groups[0], int) and isinstance(groups[1], int):
            larger = max(groups[0] / groups[1], 1)
        return (
            each.name != asked.name and asked.name not in each.same,
            each.code_bits < asked.code_bits - _EXACT,
            (only_whole and each.code_bits < asked.code_bits + _WHOLE_TENSOR - _EXACT)
            or (each.name in PLAIN and asked.name not in PLAIN),
            abs(each.code_bits - asked.code_bits),
            coarser,
            each.family != asked.family,
            each.bits < asked.bits - _EXACT,
            each.symmetric != asked.symmetric,
            larger,
            abs(each.bits - asked.bits),
        )

    return min(supported, key=distance)


def _coarseness(storage: Storage) -> int:
    return {"tensor": 2, "channel": 1}.get(str(storage.granularity), 0)


def settle(
    allocation: Allocation,
    options: Options,
    target: Target,
    formats: Formats,
    *,
    names: Sequence[str] | None = None,
    fused: bool = True,
    merged: bool = False,
    clips: bool = False,
    obstacles: Mapping[str, str] = MappingProxyType({}),
    alone: Mapping[str, str] = MappingProxyType({}),
) -> Settled:
    """Give every layer a format that the target has.

    Args:
        allocation: What is asked for.
        options: The user's options.
        target: The target.
        formats: How it can store a layer.
        names: What it calls each layer, (L,), where that is not in the options.
        fused: Whether its layers are modules, which its engines fuse.
        merged: Whether several layers may be one tensor of the target, so that they share a name.
        clips: Whether it can be told to clip.
        obstacles: Why a layer cannot be stored as any other, in words, by its name.
        alone: Why a layer is never quantized, whatever it is, in words, by its name.

    Raises:
        InputError: The options name a layer that is not there, two layers alike, or only formats that the
            target lacks; or a format of the allocation differs from a known one by the case of its letters.
    """
    check_options(allocation, options, target)
    unknown = unknown_formats(allocation, target.formats)
    if names is None:
        names = [options.names.get(name, name) for name in allocation.names]
    aliases = tuple(
        tuple(options.names.get(name, name) for name in each.aliases) for each in allocation.layers
    )
    if not merged:
        _check_apart(allocation, [(name, *more) for name, more in zip(names, aliases, strict=True)])
    modules = [name for each in allocation.layers for name in every_name(each)]
    unreachable = inner_modules(modules) if fused else frozenset()
    storages: dict[int, Storage] = {}
    leads: dict[int, int] = {}
    roundings: dict[int, Rounding] = {}
    for group in format_groups(allocation, names, fused, aliases):
        asked = {at: asked_storage(allocation.layers[at]) for at in group}
        lead = max(group, key=lambda at: (asked[at].code_bits, asked[at].bits))
        tables = {at: _by_name(allocation.layers[at], formats, options, unreachable, alone) for at in group}
        common = [each for name, each in tables[lead].items() if all(name in has for has in tables.values())]
        chosen = nearest(asked[lead], common)
        for at in group:
            storages[at], leads[at] = tables[at][chosen.name], lead
            layer, written = allocation.layers[at], storages[at]
            # Who can be stored in the fewest ways decides for all.
            order = sorted((at, *group), key=lambda each: len(tables[each]))
            deciding = [allocation.names[each] for each in order]
            obstacle = _obstacle(layer.name, deciding, obstacles)
            why = _reason(layer, allocation.layers[lead], written, target, options, common, obstacle)
            why = why and (_obstacle(layer.name, deciding, alone) or why)
            if why is None and is_clipped(layer.format) and not clips:
                why = f"{target.name} chooses itself how to clip"
            if why is not None:
                roundings[at] = Rounding(
                    layer.name, layer.format, layer.bits, written.name, written.bits, why
                )
    L = range(len(allocation.layers))
    return Settled(
        allocation,
        tuple(names),
        aliases,
        tuple(storages[at] for at in L),
        tuple(leads[at] for at in L),
        tuple(roundings[at] for at in L if at in roundings),
        unknown,
    )


def _check_apart(allocation: Allocation, names: Sequence[Sequence[str]]) -> None:
    """Refuse one name for two layers, of which the target would see one; experts may be stacked under it.

    Args:
        allocation: The allocation.
        names: What the target calls the modules that use each layer's weight, (L,).
    """
    holders: dict[str, str] = {}
    for layer, own in zip(allocation.names, names, strict=True):
        for name in own:
            first = holders.setdefault(name, layer)
            if unnumbered(first) != unnumbered(layer):
                problem = f"{first} and {layer} get one name"
                cure = "Give each of them a name of its own."
                raise InputError(problem, field="network-names", found=name, cure=cure)


def _by_name(
    layer: LayerChoice,
    formats: Formats,
    options: Options,
    unreachable: frozenset[str],
    alone: Mapping[str, str],
) -> dict[str, Storage]:
    """Return how a layer can be stored, by name; leaving it alone is never forbidden."""
    storages = plain_storages(layer) if unreachable.intersection(every_name(layer)) else formats(layer)
    found = {each.name: each for each in storages}
    if layer.name not in alone and not options.formats:
        return found
    allowed = PLAIN if layer.name in alone else (*options.formats, *PLAIN)
    return {name: each for name, each in found.items() if name in allowed}


def _reason(
    layer: LayerChoice,
    lead: LayerChoice,
    written: Storage,
    target: Target,
    options: Options,
    common: Sequence[Storage],
    obstacle: str | None,
) -> str | None:
    """Return why a layer is not stored as it asks for, None where it is."""
    name = stored_name(layer.format)
    if name in (written.name, *written.same):
        return None
    if stored_name(lead.format) != name:
        return f"shares its format with {lead.name}, which asks for {lead.format}"
    if layer.kind not in target.kinds:
        return f"{target.name} does not quantize layers of type {layer.kind}"
    if all(each.name in PLAIN for each in common) and not options.formats:
        return obstacle or f"{target.name} cannot quantize this weight{_shape(layer)}"
    if name not in target.formats:
        known = name in QUANTIZERS
        return f"{target.name} has no {name}" if known else f"{name} is unknown here, and taken by its bits"
    if options.formats and name not in options.formats:
        return f"{name} is not among the formats allowed"
    return obstacle or f"{name} does not fit this weight{_shape(layer)}, or one that shares its format"


def _obstacle(layer: str, group: Sequence[str], obstacles: Mapping[str, str]) -> str | None:
    """Return what keeps a layer, or the first of its group that something keeps, from other formats."""
    blamed = next((name for name in group if name in obstacles), None)
    if blamed in (None, layer):
        return obstacles.get(layer)
    return f"shares its format with {blamed}: {obstacles[blamed]}"


def _shape(layer: LayerChoice) -> str:
    shape = "" if layer.shape is None else f" of shape {'×'.join(map(str, layer.shape))}"
    axis = f", its output channels on axis {layer.channel_axis}" if layer.channel_axis else ""
    return shape + axis + (f", shared with {', '.join(layer.aliases)}" if layer.aliases else "")
