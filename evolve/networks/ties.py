"""Finds layers that have to share a format: what engines fuse, and what is added up.

Engines load query, key and value as one matrix, and gate and up too, so each such group has one format.
The branches that meet in a residual addition are added as integers in one format (Yao 2021); here that is
where two convolutions or linear layers meet directly, as at the shortcut of a residual network.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evolve.errors import NetworkError
from evolve.networks.activations import find_consumer
from evolve.networks.network import Network, Program, Value, find_layer

#: Last parts of names that are fused where they read the same input.
_FUSED = (
    {"q_proj", "k_proj", "v_proj"},
    {"query", "key", "value"},
    {"q", "k", "v"},
    {"q_lin", "k_lin", "v_lin"},
    {"to_q", "to_k", "to_v"},
    {"wq", "wk", "wv"},
    {"gate_proj", "up_proj"},
    {"gate", "up"},
    {"w1", "w3"},
)
#: Operators that only pass on what they read.
_PASSING = (
    *("aten.view", "aten._unsafe_view", "aten.reshape", "aten.transpose", "aten.permute", "aten.clone"),
    *("aten.detach", "aten._to_copy", "aten.squeeze", "aten.unsqueeze", "aten.expand"),
    *("Reshape", "Transpose", "Identity", "Cast", "Flatten", "Squeeze", "Unsqueeze", "Dropout"),
)
_NORMS = ("batch_norm", "BatchNormalization", "layer_norm", "LayerNormalization", "group_norm")
_ADDITIONS = ("aten.add.", "aten.add_.", "Add")


def find_ties(network: Network) -> tuple[tuple[str, ...], ...]:
    """Return groups of layers, by name and in order, that have to share a format.

    Where only a full forward pass is sure to be right, what reads what is not known: those that engines
    fuse are then told by their names alone, and nothing is known of additions.
    """
    names = [layer.name for layer in network.layers]
    program = network.program(0)
    if program is None:
        return _united(_fused(dict.fromkeys(names)), names)
    trail = _Trail(program, [(layer.name, layer.kind) for layer in network.layers])
    readers = {name: trail.origin(each.inputs[0]) for name, each in trail.consumers.items()}
    return _united([*_fused(readers), *_added(trail)], names)


def check_ties(network: Network, groups: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], ...]:
    """Return declared groups of layers by name, those that overlap made one.

    Raises:
        NetworkError: A name is that of no layer.
    """
    if isinstance(groups, str) or any(isinstance(each, str) for each in groups):
        raise NetworkError("bad ties", expected="a list of lists of layer names", found=groups)
    for group in groups:
        for name in group:
            find_layer(network, name)
    return _united(groups, [layer.name for layer in network.layers])


class _Trail:
    """Follows values back to the layers that made them."""

    def __init__(self, program: Program, layers: Sequence[tuple[str, str]]) -> None:
        self.program = program
        self.consumers = {
            name: found for name, _ in layers if (found := find_consumer(program, name)) is not None
        }
        self.kinds = dict(layers)
        self._maker = {value: at for at, step in enumerate(program.steps) for value in step.outputs}
        self._layer_at: Mapping[int, str] = {each.step: name for name, each in self.consumers.items()}

    def origin(self, value: Value) -> Value:
        """Return the value that this one only passes on."""
        at = self._maker.get(value)
        if at is None or not self._is(at, _PASSING):
            return value
        data = self.data(at)
        return self.origin(data[0]) if data else value

    def layer_behind(self, value: Value) -> str | None:
        """Return the convolution or linear layer that made a value, but for a bias or a norm after it."""
        at = self._maker.get(value)
        if at is None:
            return None
        layer = self._layer_at.get(at)
        if layer is not None and self.kinds[layer] in ("Conv", "Linear"):
            return layer
        data = self.data(at)
        norm = layer is not None or self._is(at, _NORMS)
        bias = len(data) == 1 and self._is(at, _ADDITIONS)
        if not data or not (norm or bias or self._is(at, _PASSING)):
            return None
        return self.layer_behind(data[0])

    def additions(self) -> list[tuple[Value, ...]]:
        """Return the values that each addition of data reads."""
        found = (self.data(at) for at in range(len(self.program.steps)) if self._is(at, _ADDITIONS))
        return [data for data in found if len(data) == 2]

    def data(self, at: int) -> tuple[Value, ...]:
        """Return the values that a step reads and that are no constants."""
        return tuple(each for each in self.program.steps[at].inputs if each not in self.program.constants)

    def _is(self, at: int, operators: Sequence[str]) -> bool:
        names = self.program.operators[at]
        return len(names) == 1 and any(each in names[0] for each in operators)


def _fused(readers: Mapping[str, Value]) -> list[list[str]]:
    """Return the layers that are fused, by what each of them reads."""
    groups: dict[tuple[Value, str, int], list[str]] = {}
    for name, read in readers.items():
        parts = [
            part for part in name.replace("/", ".").split(".") if part not in ("weight", "MatMul", "Gemm")
        ]
        for number, words in enumerate(_FUSED):
            if parts and parts[-1].lower() in words:
                key = (read, ".".join(parts[:-1]), number)
                groups.setdefault(key, []).append(name)
    return list(groups.values())


def _added(trail: _Trail) -> list[list[str]]:
    pairs = ([trail.layer_behind(value) for value in data] for data in trail.additions())
    return [[first, second] for first, second in pairs if first is not None and second is not None]


def _united(groups: Sequence[Sequence[str]], order: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Join groups that share a layer; leave out those of one."""
    joined: list[set[str]] = []
    for group in groups:
        touching = [each for each in joined if not each.isdisjoint(group)]
        joined = [each for each in joined if each.isdisjoint(group)] + [set(group).union(*touching)]
    listed = [tuple(sorted(each, key=order.index)) for each in joined if len(each) > 1]
    return tuple(sorted(listed, key=lambda group: order.index(group[0])))
