"""An ONNX graph as a program whose parts onnxruntime can run.

Every weight is an input of the parts, so that changing one needs no new session. Nothing is fused
and no weight is packed: what depends on a changed weight is then computed exactly as before.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from evolve.networks.network import Step, Value
from evolve.networks.onnx_constants import names_read

#: Prepared parts that are kept for the next batch.
_KEPT_SESSIONS = 8


@dataclass(eq=False)
class _Plan:
    steps: tuple[int, ...]
    wanted: tuple[str, ...]
    # Made when the types of its inputs are known.
    session: Any = None


class OnnxGraph:
    """The nodes of a graph in order: a `evolve.networks.network.Program`.

    Args:
        model: The model; its large initializers have been taken out.
        weights: Those of the weight layers and other large initializers, by name.
        names: What programs call a weight: the layer's name by the initializer's.
        output: The output that is looked at.
        threads: Threads of onnxruntime, 0 for as many as there are cores.

    Attributes:
        steps: What each node reads and makes.
        output: The name of the output.
        constants: All initializers.
    """

    def __init__(
        self,
        model: onnx.ModelProto,
        weights: Mapping[str, NDArray[Any]],
        names: Mapping[str, str],
        output: str,
        threads: int = 0,
    ) -> None:
        self._model, self._threads = model, threads
        self._small = {each.name: each for each in model.graph.initializer}
        self._nodes = list(model.graph.node)
        self._initializer_of = {layer: name for name, layer in names.items()}
        self._names = names
        self.output = output
        self.constants: dict[Value, Any] = dict.fromkeys(self._small)
        self.constants |= {names.get(name, name): array for name, array in weights.items()}
        self.steps = [
            Step(
                tuple(names.get(each, each) for each in dict.fromkeys(names_read(node))),
                tuple(filter(None, node.output)),
            )
            for node in self._nodes
        ]
        self._plans: OrderedDict[tuple[tuple[int, ...], frozenset[Value]], _Plan] = OrderedDict()

    @property
    def operators(self) -> list[tuple[str, ...]]:
        """The operator of each node."""
        return [(node.op_type,) for node in self._nodes]

    def plan(self, steps: Sequence[int], wanted: frozenset[Value]) -> _Plan:
        """Prepare some nodes; those prepared last are kept, for another batch will ask again."""
        key = (tuple(steps), frozenset(wanted))
        if key not in self._plans:
            self._plans[key] = _Plan(key[0], tuple(sorted(map(str, wanted))))
        self._plans.move_to_end(key)
        while len(self._plans) > _KEPT_SESSIONS:
            self._plans.popitem(last=False)
        return self._plans[key]

    def run(self, plan: Any, values: Mapping[Value, Any]) -> dict[Value, Any]:
        """Run prepared nodes and return the values wanted."""
        made = {value for position in plan.steps for value in self.steps[position].outputs}
        feed = {}
        for position in plan.steps:
            for value in self.steps[position].inputs:
                if value in made or value in self._small:
                    continue
                array = values[value] if value in values else self.constants[value]
                feed[self._initializer_of.get(str(value), str(value))] = array
        if plan.session is None:
            plan.session = self._session(plan, feed)
        return dict(zip(plan.wanted, plan.session.run(list(plan.wanted), feed), strict=True))

    def array(self, value: Any) -> NDArray[Any]:
        """Return a value as an array."""
        return np.asarray(value)

    def num_bytes(self, values: Mapping[Value, Any]) -> int:
        """Return the memory of arrays."""
        return sum(each.nbytes for each in values.values())

    def _session(self, plan: _Plan, feed: Mapping[str, NDArray[Any]]) -> onnxruntime.InferenceSession:
        nodes = [self._nodes[position] for position in plan.steps]
        inputs = [
            onnx.helper.make_tensor_value_info(
                name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim
            )
            for name, array in feed.items()
        ]
        outputs = [onnx.helper.make_empty_tensor_value_info(name) for name in plan.wanted]
        read = {name for node in nodes for name in names_read(node)}
        initializers = [each for name, each in self._small.items() if name in read]
        graph = onnx.helper.make_graph(nodes, "part", inputs, outputs, initializers)
        model = onnx.helper.make_model(
            graph, opset_imports=self._model.opset_import, functions=self._model.functions
        )
        model.ir_version = self._model.ir_version
        return make_session(model.SerializeToString(), self._threads)


def make_session(model: bytes | str, threads: int) -> onnxruntime.InferenceSession:
    """Return a session that computes every node by itself, on the processor."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
