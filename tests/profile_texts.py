"""A small profile as it stands in a file, and what may be wrong with it."""

from __future__ import annotations

import copy

import pytest

from evolve.errors import ProfileError
from evolve.profile_files import load_profile

LAYER = {
    "layer_idx": 0,
    "num_layers": 3,
    "layer_type": "Linear",
    "num_params": 100,
    "total_params": 600,
    "weight_mean": 0.0,
    "weight_std": 0.02,
    "weight_range": 0.1,
    "activation_range": 3,
    "gradient_sensitivity": 0.5,
    "sensitivity": [0.2, 0.01, 0.0],
}


SMALL = {
    "name": "small",
    "description": "three layers",
    "seed": 7,
    "formats": ["INT4", "INT8", "FP32"],
    "layers": [
        LAYER,
        {**LAYER, "layer_idx": 1, "num_params": 200, "layer_type": "LayerNorm"},
        {**LAYER, "layer_idx": 2, "num_params": 300, "layer_type": "Classifier"},
    ],
}


def small(**changes):
    return {**copy.deepcopy(SMALL), **changes}


def with_layer(at, **changes):
    data = small()
    data["layers"][at] |= changes
    return data


def with_shapes(second):
    """Give each layer a shape, the second one that one."""
    data = small()
    for layer, shape in zip(data["layers"], ([100], second, [3, 100]), strict=True):
        layer["shape"] = shape
    return data


def without(data, field):
    return {name: value for name, value in data.items() if name != field}


def message_of(tmp_path, text):
    path = tmp_path / "model.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ProfileError) as caught:
        load_profile(path)
    assert str(path) in str(caught.value)
    assert caught.value.exit_status == 2
    return str(caught.value)
