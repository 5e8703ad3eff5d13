"""Without an extra, the feature fails by name and says what installs it; everything else works."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: Makes an import fail as if nothing were installed.
BLOCKED = """
import runpy, sys
sys.modules[{library!r}] = None
sys.argv = ["evolve", *{arguments!r}]
runpy.run_module("evolve", run_name="__main__")
"""


def run_without(library: str, arguments: list[str], folder) -> subprocess.CompletedProcess[str]:
    code = BLOCKED.format(library=library, arguments=arguments)
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("library", "extra", "arguments"),
    [
        ("torch", "torch", ["profile", "mine:network"]),
        ("onnx", "onnx", ["profile", "model.onnx", "--data", "data.npz"]),
        ("onnxruntime", "onnx", ["profile", "model.onnx", "--data", "data.npz"]),
    ],
)
def test_a_missing_extra_is_named(library, extra, arguments, tmp_path):
    (tmp_path / "model.onnx").touch()
    done = run_without(library, arguments, tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("error:") == 1
    assert f"pip install 'evolve-precision[{extra}]'" in done.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "model.onnx"]


def test_adapters_are_missed_by_name():
    code = """
import sys
sys.modules["torch"] = sys.modules["onnx"] = None
import evolve.networks
for name in ("TorchNetwork", "OnnxNetwork"):
    try:
        getattr(evolve.networks, name)
    except evolve.errors.NetworkError as error:
        assert "pip install" in str(error)
    else:
        raise AssertionError(name)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_other_verbs_load_no_extra():
    code = """
import sys, evolve.cli, evolve.engine, evolve.networks
assert not {"torch", "onnx", "onnxruntime"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
