"""Jointly measured allocations of a network: what putting many layers in formats at once really costs.

A profile measures each layer alone and adds up. Beside it lies what whole allocations did, so that the
error of adding up is itself data. Shapes: J allocations, L layers, K formats.
"""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evolve.datasets import Dataset
from evolve.errors import ProfileError
from evolve.fields import Field, blamed_on, fault_in, parse_object, parse_value, read_json
from evolve.profiles import MOST_FORMATS, ModelProfile

FloatArray = NDArray[np.float64]
ChoiceArray = NDArray[np.uint8]

#: The folder beside the splits of a data set that holds one file a profile.
FOLDER = "joint"

_NUMBER = (int, float)
_DIVERGENCE = Field("a finite number, at least 0", _NUMBER, 0)
_NAME = Field("a printable text that is not empty", str)
_CHOICE = Field("a format index", int, 0, MOST_FORMATS - 1)
#: What is measured of each allocation, and what it must be.
_MEASURED = {
    "divergence": _DIVERGENCE,
    "calibration_divergence": _DIVERGENCE,
    "loss": Field("a finite number", _NUMBER),
    "accuracy": Field("a number in [0, 1]", _NUMBER, 0, 1),
}
_FIELDS = {
    "model": _NAME,
    "profile_sha256": Field("64 hexadecimal digits, the content hash of the profile", str),
    "formats": Field("a list of format names", list),
    "allocations": Field("a list of at least one list of format indices, one a layer", list),
    "sources": Field("a list of texts, one an allocation", list),
    "average_bits": Field("a list of numbers, one an allocation", list),
    **{name: Field("a list of numbers, one an allocation", list) for name in _MEASURED},
}
_OPTIONAL_FIELDS = {"provenance": Field("an object", dict)}
_BITS = Field("a number from 0.01 to 64", _NUMBER, 0.01, 64)


#: Sums of divergences up to which adding up predicts what a whole allocation measures, in convolutional
#: networks and in others. The 40 networks of ``datasets/measured``: between .01 and .1 the measured
#: divergence is in the median 1.2 to 2.9 times the sum in families of the first kind (ResNets the worst, in
#: one allocation of ten 10 times), and .97 to 1.22 times in those of the second. The former all have norms;
#: that it holds where these are folded into the convolutions, as in many ONNX files, is taken for granted.
_RANGES = 0.01, 0.1


def additive_range(kinds: Sequence[str]) -> float:
    """Return the sum of divergences up to which adding up holds in a network.

    Args:
        kinds: The type of each layer, (L,).
    """
    counts = Counter(kinds)
    # Patches of a transformer are a convolution too, but only one.
    return _RANGES[0] if counts["Conv"] > counts["Linear"] + counts["Attention"] else _RANGES[1]


@dataclass(frozen=True, eq=False)
class JointMeasurements:
    """What whole allocations of one network did to it; valid by construction, its arrays read-only.

    Attributes:
        model: The profile's name.
        profile_sha256: The content hash of the profile that the format indices belong to.
        formats: Names of the formats, (K,).
        allocations: Format index of each layer, (J, L).
        sources: What made each allocation: ``uniform INT4``, ``random 3.5``, ``kl 3.5`` …, (J,).
        average_bits: Bits per weight, (J,).
        divergence: Of the outputs on held-out data, (J,).
        calibration_divergence: Of the outputs on the data that the profile was measured on, (J,).
        loss: Mean loss on held-out data, (J,).
        accuracy: Share of right answers on held-out data, (J,).
        provenance: How it was measured: JSON values.

    Raises:
        ProfileError: A shape or a value is not valid.
    """

    model: str
    profile_sha256: str
    formats: tuple[str, ...]
    allocations: ChoiceArray
    sources: tuple[str, ...]
    average_bits: FloatArray
    divergence: FloatArray
    calibration_divergence: FloatArray
    loss: FloatArray
    accuracy: FloatArray
    provenance: Mapping[str, Any]

    def __post_init__(self) -> None:
        object.__setattr__(self, "formats", tuple(self.formats))
        object.__setattr__(self, "sources", tuple(self.sources))
        choices = np.array(self.allocations)
        if choices.ndim != 2 or not choices.size or choices.dtype.kind not in "iu":
            expected = "whole numbers of shape (J, L), neither 0"
            found = f"{choices.dtype} of shape {choices.shape}"
            raise fault_in("wrong shape", None, "allocations", expected, found)
        outside = np.argwhere((choices < 0) | (choices >= len(self.formats)))
        if len(outside):
            words = f"format indices from 0 to {len(self.formats) - 1}"
            place = f"allocation {outside[0][0]}"
            found = choices[tuple(outside[0])].item()
            raise fault_in("out of bounds", place, "allocations", words, found)
        object.__setattr__(self, "allocations", _frozen(choices.astype(np.uint8)))
        J = len(choices)
        if len(self.sources) != J:
            raise fault_in("wrong shape", None, "sources", f"(J,) = {(J,)}", (len(self.sources),))
        for name, field in {"average_bits": _BITS, **_MEASURED}.items():
            object.__setattr__(self, name, _numbers(name, getattr(self, name), field, J))

    def __len__(self) -> int:
        return len(self.allocations)

    def predicted(self, profile: ModelProfile) -> FloatArray:
        """Return what adding up predicts: the sum of each layer's own divergence, (J,).

        Raises:
            ProfileError: The measurements are of another profile.
        """
        self.check_profile(profile)
        summed: FloatArray = profile.loss[np.arange(profile.num_layers), self.allocations].sum(axis=1)
        return summed

    def check_profile(self, profile: ModelProfile) -> None:
        """Refuse a profile that the format indices do not belong to.

        Raises:
            ProfileError: It is another one, or other numbers.
        """
        if self.profile_sha256 != profile.content_hash:
            raise ProfileError(
                "measurements of another profile",
                field="profile_sha256",
                expected=f"{profile.content_hash}, that of {profile.name}",
                found=self.profile_sha256,
                cure="Measure the allocations again with the profile's network.",
            )
        if self.allocations.shape[1] != profile.num_layers or self.formats != profile.format_names:
            shape = (profile.num_layers, len(profile.formats))
            found = (self.allocations.shape[1], len(self.formats))
            raise fault_in("wrong shape", None, "allocations", f"(L, K) = {shape}", found)


def load_joint(path: str | os.PathLike[str]) -> JointMeasurements:
    """Read joint measurements from a file, compressed or not.

    Raises:
        ProfileError: The file cannot be read or does not hold valid ones.
    """
    with blamed_on(path):
        return parse_joint(read_json(Path(path)))


def parse_joint(data: object) -> JointMeasurements:
    """Make joint measurements of parsed JSON.

    Raises:
        ProfileError: Something is missing, unknown, of the wrong type or out of bounds.
    """
    top = parse_object(data, _FIELDS, _OPTIONAL_FIELDS)
    top.setdefault("provenance", {})
    for name in ("formats", "sources"):
        for at, each in enumerate(top[name]):
            parse_value(each, _NAME, f"{name}[{at}]", None)
    for name, field in {"average_bits": _BITS, **_MEASURED}.items():
        for at, each in enumerate(top[name]):
            parse_value(each, field, name, f"allocation {at}")
    L = len(top["allocations"][0]) if top["allocations"] and isinstance(top["allocations"][0], list) else 0
    for at, row in enumerate(top["allocations"]):
        place = f"allocation {at}"
        if not isinstance(row, list) or len(row) != L:
            raise fault_in("wrong shape", place, "allocations", f"a list of L = {L} format indices", row)
        for each in row:
            parse_value(each, _CHOICE, "allocations", place)
    return JointMeasurements(**top)


def save_joint(joint: JointMeasurements, path: str | os.PathLike[str]) -> None:
    """Write joint measurements as JSON; the file appears whole or not at all.

    A name that ends in ``.gz`` makes it compressed.

    Raises:
        ProfileError: The file cannot be written.
    """
    target = Path(path)
    aside = target.with_name(f".{target.name}.{os.getpid()}.partial")
    text = json.dumps(joint_to_json(joint), allow_nan=False).encode()
    try:
        # Without the time of writing: the same measurements give the same bytes.
        aside.write_bytes(gzip.compress(text, mtime=0) if target.suffix == ".gz" else text)
        aside.replace(target)
    except OSError as fault:
        aside.unlink(missing_ok=True)
        raise ProfileError(f"cannot be written ({fault.strerror})", file=path) from None


def joint_to_json(joint: JointMeasurements) -> dict[str, Any]:
    """Return a JSON object; parsing it gives equal measurements, bit by bit."""
    return {
        "model": joint.model,
        "profile_sha256": joint.profile_sha256,
        "formats": list(joint.formats),
        "provenance": dict(joint.provenance),
        "sources": list(joint.sources),
        "average_bits": joint.average_bits.tolist(),
        **{name: getattr(joint, name).tolist() for name in _MEASURED},
        "allocations": joint.allocations.tolist(),
    }


def joint_of(dataset: Dataset) -> dict[str, JointMeasurements]:
    """Return the joint measurements that lie beside a data set's profiles, by the profile's name.

    Raises:
        ProfileError: The data set is no folder with a folder ``joint``; a file in it is not valid, or
            belongs to no profile of the data set.
    """
    folder = Path(dataset.source) / FOLDER
    if not folder.is_dir():
        words = f"a folder {FOLDER!r} beside the splits"
        raise ProfileError("no joint measurements", file=dataset.source or dataset.name, expected=words)
    profiles = {profile.name: profile for _, profile in dataset.splits()}
    found = {}
    for path in sorted(folder.glob("*.json*")):
        joint = load_joint(path)
        with blamed_on(path):
            if joint.model not in profiles:
                words = "the name of a profile of the data set"
                raise fault_in("unknown model", None, "model", words, joint.model)
            joint.check_profile(profiles[joint.model])
        found[joint.model] = joint
    return found


def _numbers(name: str, values: ArrayLike | Sequence[float], field: Field, J: int) -> FloatArray:
    array = np.array(values, dtype=np.float64)
    if array.shape != (J,):
        raise fault_in("wrong shape", None, name, f"(J,) = {(J,)}", array.shape)
    outside = np.flatnonzero(~((array >= field.low) & (array <= field.high)))
    if len(outside):
        place = f"allocation {outside[0]}"
        raise fault_in("out of bounds", place, name, field.expected, array[outside[0]].item())
    return _frozen(array)


def _frozen(array: NDArray[Any]) -> NDArray[Any]:
    array.setflags(write=False)
    return array
