"""Which layers have to get one format: tied ones, those an engine fuses, and those it stores as one.

vLLM, SGLang and TensorRT-LLM load query, key and value as one matrix, gate and up as one, and all experts of
a mixture as one; a checkpoint whose parts differ in format does not load.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence

from evolve.allocations import Allocation
from evolve.exporters.experts import is_stack, split_stack

FUSED: tuple[tuple[tuple[str, ...], str], ...] = (
    (("q_proj", "k_proj", "v_proj"), "qkv_proj"),
    (("query", "key", "value"), "qkv_proj"),
    (("wq", "wk", "wv"), "wqkv"),
    (("gate_proj", "up_proj"), "gate_up_proj"),
    (("w1", "w3"), "gate_up_proj"),
)
"""Last parts of names that engines fuse, and the name of what they become."""

_EXPERT = re.compile(r"^(?P<path>.*\bexperts)\.\d+\.")


def format_groups(
    allocation: Allocation,
    names: Sequence[str],
    fused: bool = True,
    aliases: Sequence[Sequence[str]] = (),
) -> tuple[tuple[int, ...], ...]:
    """Return groups of positions that cover every layer once, in order of their first layers.

    Args:
        allocation: The allocation, whose ties always hold.
        names: What the target calls each layer, (L,); layers of one name are one tensor there.
        fused: Whether the target's engines fuse layers.
        aliases: What it calls the other modules that use each layer's weight, (L,), or none at all.
    """
    keys: list[list[Hashable]] = [[("name", name)] for name in names]
    for number, group in enumerate(allocation.tied_layers):
        for at in group:
            keys[at].append(("tie", number))
    if fused:
        for at, name in enumerate(names):
            every = (name, *(aliases[at] if aliases else ()))
            stacked = is_stack(allocation.layers[at])
            keys[at] += [("fused", part) for each in every for part in fused_into(each, stacked)]
    return _joined(keys)


def fused_into(name: str, stacked: bool = False) -> list[str]:
    """Return the paths of what an engine fuses a module, or stacked ones, into: one, or none."""
    stack = split_stack(name) if stacked else None
    if stack is not None:
        return [stack[0]]
    expert = _EXPERT.match(name)
    if expert:
        return [expert["path"]]
    path, dot, last = name.rpartition(".")
    return [path + dot + whole for parts, whole in FUSED if last in parts]


def _joined(keys: Sequence[Iterable[Hashable]]) -> tuple[tuple[int, ...], ...]:
    """Return the groups of positions that share a key, directly or through others."""
    parents = list(range(len(keys)))

    def root(at: int) -> int:
        while parents[at] != at:
            parents[at] = parents[parents[at]]
            at = parents[at]
        return at

    holders: dict[Hashable, int] = {}
    for at, own in enumerate(keys):
        for key in own:
            first, second = sorted((root(holders.setdefault(key, at)), root(at)))
            parents[second] = first
    groups: dict[int, list[int]] = {}
    for at in range(len(keys)):
        groups.setdefault(root(at), []).append(at)
    return tuple(map(tuple, groups.values()))
