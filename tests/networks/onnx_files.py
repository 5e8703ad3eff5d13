"""ONNX files for tests: PyTorch networks exported, and graphs written node by node."""

from __future__ import annotations

import io
import warnings

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

FORMATS = ("INT4", "INT8", "FP32")


def export(model: nn.Module, inputs: torch.Tensor, path, **options) -> str:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(),
            (inputs,),
            buffer,
            dynamo=False,
            input_names=["x"],
            dynamic_axes={"x": {0: "n"}},
            **options,
        )
    path.write_bytes(buffer.getvalue())
    return str(path)


def graph(nodes, weights, path, inputs=(("x", [None, 4]),)):
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(each), name) for name, each in weights.items()],
    )
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path
