"""Real networks: profile them, and measure what allocations do to them.

Needs the extra ``torch`` for PyTorch modules and ``onnx`` for ONNX files; nothing is imported before it
is used. `load_network` finds a network by name or file; `TorchNetwork` and `OnnxNetwork` make one in code:

    from evolve.networks import TorchNetwork, profile_network
    profile = profile_network(TorchNetwork(model, loader), ["INT4_G32", "INT8", "FP16"])
"""

from __future__ import annotations

from typing import Any

from evolve.networks.extras import require_onnx, require_torch
from evolve.networks.measuring import measure_weights, reference_of
from evolve.networks.metrics import TASKS, Measurement, Reference
from evolve.networks.network import Network, WeightLayer, find_layer
from evolve.networks.profiling import DEFAULT_FORMATS, Progress, profile_network
from evolve.networks.sources import load_network
from evolve.networks.ties import find_ties

__all__ = [
    "DEFAULT_FORMATS",
    "TASKS",
    "Measurement",
    "Network",
    "OnnxNetwork",
    "Progress",
    "Reference",
    "TorchNetwork",
    "WeightLayer",
    "find_layer",
    "find_ties",
    "load_network",
    "measure_weights",
    "profile_network",
    "reference_of",
]


def __getattr__(name: str) -> Any:
    """Import an adapter, and with it its library, when it is first asked for."""
    if name == "TorchNetwork":
        require_torch()
        from evolve.networks.torch_network import TorchNetwork

        return TorchNetwork
    if name == "OnnxNetwork":
        require_onnx()
        from evolve.networks.onnx_network import OnnxNetwork

        return OnnxNetwork
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
