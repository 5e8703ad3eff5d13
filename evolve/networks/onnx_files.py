"""ONNX models as files: one, or one and another that has the tensors where those are too large for it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
from onnx.external_data_helper import load_external_data_for_model, set_external_data, uses_external_data

from evolve.errors import NetworkError

#: Bytes of tensors that go into one file: protobuf allows 2 GiB of everything.
LARGEST = 2_000_000_000
#: Tensors below this size stay in the model's file.
_SMALL = 1024
#: Tensors start at multiples of it, so that a file can be mapped into memory.
_PAGE = 4096


def load_model(path: Path) -> tuple[onnx.ModelProto, bool]:
    """Read a model with all its tensors.

    Returns:
        The model, and whether it had tensors in another file.

    Raises:
        NetworkError: It cannot be read.
    """
    try:
        model = onnx.load(path, load_external_data=False)
        apart = any(map(uses_external_data, model.graph.initializer))
        load_external_data_for_model(model, os.fspath(path.parent))
    except FileNotFoundError:
        raise NetworkError("no such file", file=path, expected="an ONNX model") from None
    except Exception as fault:
        raise NetworkError(f"cannot be read ({fault})", file=path, expected="an ONNX model") from fault
    return model, apart


def save_model(model: onnx.ModelProto, path: Path, apart: bool) -> None:
    """Write a model, its tensors in the file ``NAME.onnx.data`` beside it where they are too large for one.

    Args:
        model: The model; it loses the tensors that are written elsewhere.
        path: The file.
        apart: Whether tensors are to be in another file though they are not too large.
    """
    if apart or sum(map(_num_bytes, model.graph.initializer)) > LARGEST:
        _write_tensors(model.graph, path.with_name(f"{path.name}.data"))
    onnx.save(model, path)


def _write_tensors(graph: onnx.GraphProto, path: Path) -> None:
    with path.open("wb") as file:
        for tensor in graph.initializer:
            if _num_bytes(tensor) < _SMALL or tensor.data_type == onnx.TensorProto.STRING:
                continue
            if not tensor.HasField("raw_data"):
                tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name))
            start = -(-file.tell() // _PAGE) * _PAGE
            file.seek(start)
            length = file.write(tensor.raw_data)
            set_external_data(tensor, path.name, start, length)
            tensor.ClearField("raw_data")


def _num_bytes(tensor: onnx.TensorProto) -> int:
    # Asking a tensor for its bytes would copy them.
    return int(np.prod(tensor.dims)) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
