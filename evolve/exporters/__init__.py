"""Allocations in the form of the tools that run them; one file a target.

Every exporter is a plain function from an `Allocation` and `Options` to an `Export`. All write text and need
nothing but the base install, except for looking up names: in an ONNX model, or GGUF's for an architecture.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from evolve.errors import InputError
from evolve.exporters import (
    compressed_tensors,
    gptqmodel,
    llama_cpp,
    llm_compressor,
    mlx,
    modelopt,
    onnxruntime,
    torchao,
)
from evolve.exporters.export import Export, Options, Rounding, Target, Written
from evolve.fields import near_match

__all__ = ["TARGETS", "Export", "Options", "Rounding", "Target", "Written", "find_target"]

TARGETS: Mapping[str, Target] = MappingProxyType(
    {
        each.TARGET.name: each.TARGET
        for each in (
            compressed_tensors,
            llm_compressor,
            torchao,
            gptqmodel,
            llama_cpp,
            modelopt,
            onnxruntime,
            mlx,
        )
    }
)
"""Every target by its name."""


def find_target(name: str) -> Target:
    """Return a target.

    Raises:
        InputError: There is none of that name.
    """
    if name not in TARGETS:
        raise InputError("no such target", field="--to", found=name, cure=near_match(name, TARGETS))
    return TARGETS[name]
