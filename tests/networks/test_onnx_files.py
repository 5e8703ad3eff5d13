"""ONNX models that are two files: read, and written again so that whoever loads them finds both."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from evolve.errors import NetworkError
from evolve.networks import OnnxNetwork, onnx_files
from evolve.networks.applying import QuantizedWeights, check_place, save_quantized, uniform

X = np.random.default_rng(0).normal(size=(5, 40)).astype("f")


@pytest.fixture
def model() -> onnx.ModelProto:
    rng = np.random.default_rng(1)
    first, second = rng.normal(size=(40, 30)), rng.normal(size=(30, 20))
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "first"], ["a"]),
            helper.make_node("MatMul", ["a", "second"], ["b"]),
            helper.make_node("Add", ["b", "bias"], ["out"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 40])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(first.astype("f"), "first"),
            # Stored as a list of numbers and not as bytes.
            helper.make_tensor("second", TensorProto.FLOAT, second.shape, second.ravel()),
            numpy_helper.from_array(np.ones(20, "f"), "bias"),
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def apply(source, target) -> np.ndarray:
    """Write a model in INT4, and return what it should make of the inputs."""
    network = OnnxNetwork(source, {"x": X}, threads=1)
    formats = uniform(network, "INT4")
    save_quantized(network, formats, target)
    assert not list(target.parent.glob(".*"))
    return network.outputs(0, QuantizedWeights(network).all(formats))


def run(path) -> np.ndarray:
    return onnxruntime.InferenceSession(path).run(None, {"x": X})[0]


def names(folder) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def test_what_was_read_from_two_files_is_written_to_two(model, tmp_path):
    onnx.save(
        model, tmp_path / "m.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    (tmp_path / "made").mkdir()
    expected = apply(tmp_path / "m.onnx", tmp_path / "made" / "small.onnx")
    assert names(tmp_path / "made") == ["small.onnx", "small.onnx.data"]
    np.testing.assert_allclose(run(tmp_path / "made" / "small.onnx"), expected, rtol=1e-4, atol=1e-5)
    # Over itself, with the data that it is read from.
    again = apply(tmp_path / "made" / "small.onnx", tmp_path / "made" / "small.onnx")
    np.testing.assert_allclose(run(tmp_path / "made" / "small.onnx"), again, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("limit", [7279, 7280])
def test_what_is_too_large_for_one_file_is_written_to_two(limit, model, tmp_path, monkeypatch):
    onnx.save(model, tmp_path / "m.onnx")
    monkeypatch.setattr(onnx_files, "LARGEST", limit)
    (tmp_path / "made").mkdir()
    expected = apply(tmp_path / "m.onnx", tmp_path / "made" / "small.onnx")
    two = limit < 4 * (40 * 30 + 30 * 20 + 20)
    assert names(tmp_path / "made") == ["small.onnx", "small.onnx.data"][: 1 + two]
    np.testing.assert_allclose(run(tmp_path / "made" / "small.onnx"), expected, rtol=1e-4, atol=1e-5)
    stored = onnx.load(tmp_path / "made" / "small.onnx", load_external_data=False).graph.initializer
    # A bias is too small to be worth looking up elsewhere.
    assert [bool(each.external_data) for each in stored] == [two, two, False]


def test_data_that_are_there_already_are_not_lost(model, tmp_path):
    onnx.save(model, tmp_path / "m.onnx")
    network = OnnxNetwork(tmp_path / "m.onnx", None)
    (tmp_path / "other.onnx.data").write_bytes(b"mine")
    with pytest.raises(NetworkError, match=r"other\.onnx\.data: exists already.*--overwrite"):
        check_place(network, tmp_path / "other.onnx")
    check_place(network, tmp_path / "other.onnx", overwrite=True)
    check_place(network, tmp_path / "another.onnx")


def test_the_model_that_is_read_is_not_written_over(model, tmp_path):
    onnx.save(
        model, tmp_path / "m.onnx", save_as_external_data=True, location="m.onnx.data", size_threshold=0
    )
    network = OnnxNetwork(tmp_path / "m.onnx", None)
    files = [tmp_path / "m.onnx", tmp_path / "m.onnx.data"]
    with pytest.raises(NetworkError, match=r"m\.onnx: this file is read"):
        check_place(network, tmp_path / "m.onnx", overwrite=True, inputs=files)
    (tmp_path / "m.onnx").rename(tmp_path / "other.onnx")
    with pytest.raises(NetworkError, match=r"m\.onnx\.data: this file is read"):
        check_place(network, tmp_path / "m.onnx", overwrite=True, inputs=files)


def test_tensors_of_an_older_model_go_with_it(model, tmp_path, monkeypatch):
    onnx.save(model, tmp_path / "m.onnx")
    (tmp_path / "made").mkdir()
    with monkeypatch.context() as large:
        large.setattr(onnx_files, "LARGEST", 0)
        apply(tmp_path / "m.onnx", tmp_path / "made" / "small.onnx")
    assert names(tmp_path / "made") == ["small.onnx", "small.onnx.data"]
    expected = apply(tmp_path / "m.onnx", tmp_path / "made" / "small.onnx")
    assert names(tmp_path / "made") == ["small.onnx"]
    np.testing.assert_allclose(run(tmp_path / "made" / "small.onnx"), expected, rtol=1e-4, atol=1e-5)


def test_a_missing_second_file_is_explained(model, tmp_path):
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="gone.bin", size_threshold=0)
    (tmp_path / "gone.bin").unlink()
    with pytest.raises(NetworkError, match=r"cannot be read.*gone\.bin"):
        OnnxNetwork(tmp_path / "m.onnx", {"x": X})
    with pytest.raises(NetworkError, match="no such file"):
        OnnxNetwork(tmp_path / "nothing.onnx", {"x": X})


def test_a_folder_that_cannot_be_written_leaves_nothing(model, tmp_path, monkeypatch):
    onnx.save(model, tmp_path / "m.onnx")
    monkeypatch.setattr(onnx_files, "LARGEST", 0)

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(onnx_files.onnx, "save", full)
    network = OnnxNetwork(tmp_path / "m.onnx", None)
    with pytest.raises(NetworkError, match=r"cannot be written.*no space left"):
        save_quantized(network, uniform(network, "INT4"), tmp_path / "small.onnx")
    assert names(tmp_path) == ["m.onnx"]
