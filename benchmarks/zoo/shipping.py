"""Makes the files of the zoo: profiles, joint measurements, and a few networks as ONNX with their data."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from evolve.joint import FOLDER, save_joint
from evolve.networks import Network
from evolve.profile_files import save_profile
from zoo.catalogue import Entry
from zoo.data import SOURCES
from zoo.measuring import measure_jointly, measure_profile, networks_of
from zoo.training import trained

#: Told of what is being done, of steps done and of all.
Progress = Callable[[str, int, int], None]

_OPSET = 17


def is_made(entry: Entry, folder: Path) -> bool:
    """Whether a network's profile and joint measurements are there."""
    return all(path.exists() for path in _paths(entry, folder))


def make(entry: Entry, folder: Path, weights: Path, progress: Progress | None = None) -> None:
    """Train a network, profile it, measure allocations of it, and write both.

    Args:
        entry: The network.
        folder: Of the data set.
        weights: The folder that trained weights are kept in.
        progress: Told how far it is.
    """

    def told(word: str) -> Callable[[int, int], None] | None:
        return None if progress is None else lambda done, total: progress(word, done, total)

    model = trained(entry, weights, told("training"))
    calibration, held_out = networks_of(entry, model)
    _measure(entry, calibration, held_out, *_paths(entry, folder), told)


def make_onnx(entry: Entry, folder: Path, weights: Path, progress: Progress | None = None) -> None:
    """Write a network as ONNX with its data, and measure it as such: without gradients, by onnxruntime.

    Args:
        entry: The network.
        folder: Where the network gets a folder of its own.
        weights: The folder that trained weights are kept in.
        progress: Told how far it is.
    """
    from evolve.networks import OnnxNetwork

    def told(word: str) -> Callable[[int, int], None] | None:
        return None if progress is None else lambda done, total: progress(word, done, total)

    own = folder / entry.name
    if (own / "joint.json.gz").exists():
        return
    own.mkdir(parents=True, exist_ok=True)
    source = SOURCES[entry.data]()
    model = trained(entry, weights)
    arrays = {
        part: {"x": split.inputs.numpy(), "labels": split.labels.numpy()}
        for part, split in (("calibration", source.calibration), ("held_out", source.held_out))
    }
    export(model, source.calibration.inputs, own / f"{entry.name}.onnx")
    networks = []
    for part, each in arrays.items():
        small = {name: _narrow(array) for name, array in each.items()}
        np.savez_compressed(own / f"{part}.npz", **small)
        networks.append(OnnxNetwork(own / f"{entry.name}.onnx", each, source.task, threads=1))
    _measure(entry, *networks, own / "profile.json.gz", own / "joint.json.gz", told)


def export(model: nn.Module, inputs: torch.Tensor, path: Path) -> None:
    """Write a model as ONNX, its batches of any size."""
    with warnings.catch_warnings():
        # The other exporter needs packages that nothing else here does.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (inputs[:2],),
            str(path),
            dynamo=False,
            opset_version=_OPSET,
            input_names=["x"],
            output_names=["y"],
            dynamic_axes={"x": {0: "N"}, "y": {0: "N"}},
        )


def _measure(
    entry: Entry,
    calibration: Network,
    held_out: Network,
    profile_path: Path,
    joint_path: Path,
    told: Callable[[str], Callable[[int, int], None] | None],
) -> None:
    profile = measure_profile(entry, calibration, told("profiling"))
    joint = measure_jointly(profile, calibration, held_out, entry.seed, told("measuring"))
    for path in (profile_path, joint_path):
        path.parent.mkdir(parents=True, exist_ok=True)
    save_profile(profile, profile_path)
    # Last, so that a network whose joint measurements are there is whole.
    save_joint(joint, joint_path)


def _paths(entry: Entry, folder: Path) -> tuple[Path, Path]:
    file = f"{entry.name}.json.gz"
    return folder / entry.split / file, folder / FOLDER / file


def _narrow(array: np.ndarray) -> np.ndarray:
    """Return whole numbers in as few bits as they need: files get smaller, values stay."""
    return array.astype(np.min_scalar_type(int(array.max()))) if array.dtype.kind == "i" else array
