"""The small real networks that ship as ONNX files: what was measured of them is measured again."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="needs onnxruntime: pip install 'evolve-precision[onnx]'")

from evolve.datasets import dataset_folders
from evolve.joint import load_joint
from evolve.networks import load_network, measure_weights, reference_of
from evolve.profile_files import load_profile
from evolve.quantizers import find_quantizer

FOLDERS = sorted(path for path in (dataset_folders()[-1] / "networks").iterdir() if path.is_dir())
#: Kernels differ between processors, and rounding grows through a network.
CLOSE = {"rel": 2e-3, "abs": 1e-6}


def network(folder, part):
    return load_network(str(folder / f"{folder.name}.onnx"), folder / f"{part}.npz", batch_size=1024)


def test_there_are_a_handful():
    assert 4 <= len(FOLDERS) <= 6


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_measured_again_they_give_the_shipped_numbers(folder):
    assert all(path.stat().st_size < 150_000 for path in folder.iterdir())
    profile, joint = load_profile(folder / "profile.json.gz"), load_joint(folder / "joint.json.gz")
    joint.check_profile(profile)
    held_out = network(folder, "held_out")
    reference = reference_of(held_out)
    unchanged = joint.provenance["unchanged"]
    assert reference.unchanged.accuracy == pytest.approx(unchanged["accuracy"], abs=0.003)
    assert reference.unchanged.loss == pytest.approx(unchanged["loss"], **CLOSE)
    assert profile.layer_names == tuple(layer.name for layer in held_out.layers)
    for at in np.linspace(0, len(joint) - 1, 3).astype(int):
        names = [profile.format_names[choice] for choice in joint.allocations[at]]
        weights = {
            layer: find_quantizer(name).dequantized(held_out.weights(layer))
            for layer, name in zip(profile.layer_names, names, strict=True)
        }
        measured = measure_weights(held_out, reference, weights)
        assert measured.divergence == pytest.approx(joint.divergence[at], **CLOSE)
        assert measured.loss == pytest.approx(joint.loss[at], **CLOSE)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_cells_of_the_shipped_profile_are_measured_again(folder):
    profile = load_profile(folder / "profile.json.gz")
    calibration = network(folder, "calibration")
    reference = reference_of(calibration)
    for layer in (0, profile.num_layers - 1):
        name = profile.layer_names[layer]
        rounded = find_quantizer("INT4").dequantized(calibration.weights(name))
        measured = measure_weights(calibration, reference, {name: rounded})
        expected = profile.loss[layer, profile.format_names.index("INT4")]
        assert measured.divergence == pytest.approx(expected, **CLOSE)
