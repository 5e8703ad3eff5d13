"""Profiles as JSON, the published form: read strictly, written whole or not at all."""

from __future__ import annotations

import gzip
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from evolve.errors import ProfileError
from evolve.fields import Field, blamed_on, fault_in, parse_object, parse_value, read_json
from evolve.formats import PrecisionFormat, get_format, known_formats
from evolve.layer_groups import ALIASES, AXIS, EXPERTS, TIES, parse_column, parse_ties
from evolve.layer_tables import parse_table, parse_tables, row_to_json
from evolve.profiles import LAYER_FIELDS, PROFILE_FIELDS, SENSITIVITY, STATISTICS, ModelProfile

_OPTIONAL_FIELDS = {
    "description": Field("a text", str),
    "seed": Field("a whole number or null", (int, type(None))),
    "source": Field("a text", str),
    "tied_layers": TIES,
    "provenance": Field("an object", dict),
}
_OPTIONAL_LAYER_FIELDS = {
    "name": PROFILE_FIELDS["name"],
    "shape": Field("a list of whole numbers, at least 1, whose product is num_params", list),
    "bits": Field("a list of numbers from 0.01 to 64, one a format", list),
    "aliases": ALIASES,
    "channel_axis": AXIS,
    "num_experts": EXPERTS,
    "costs": Field("an object of numbers, or of lists of one number a format", dict),
    "measurements": Field("an object of numbers, or of lists of one number a format", dict),
}
_FORMAT_FIELDS = {
    "name": Field("letters, digits and underscores", str),
    "bits": Field("a number from 0.01 to 64", (int, float), 0.01, 64),
    "kind": Field("integer, float or codebook", str),
}


def load_profile(path: str | os.PathLike[str]) -> ModelProfile:
    """Read a profile from a file in the published JSON form.

    Raises:
        ProfileError: The file cannot be read or is not a valid profile.
    """
    with blamed_on(path):
        return parse_profile(read_json(Path(path)))


def save_profile(profile: ModelProfile, path: str | os.PathLike[str]) -> None:
    """Write a profile in the published JSON form; the file appears whole or not at all.

    A name that ends in ``.gz`` makes it compressed.

    Raises:
        ProfileError: The file cannot be written.
    """
    target = Path(path)
    aside = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        text = json.dumps(profile_to_json(profile), indent=1, allow_nan=False).encode()
        with aside.open("wb") as file:
            # Without the time of writing: the same profile gives the same bytes.
            file.write(gzip.compress(text, mtime=0) if target.suffix == ".gz" else text)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(target)
    except OSError as fault:
        with suppress(OSError):  # its name may be what is wrong
            aside.unlink()
        raise ProfileError(f"cannot be written ({fault.strerror})", file=path) from None


def profile_to_json(profile: ModelProfile) -> dict[str, Any]:
    """Return the published JSON form; parsing it gives an equal profile, bit by bit."""
    known = known_formats()
    layers = [
        {
            "layer_idx": int(profile.layer_index[layer]),
            "num_layers": profile.num_layers,
            "layer_type": kind,
            "num_params": int(profile.num_params[layer]),
            "total_params": profile.total_params,
            **{name: float(getattr(profile, name)[layer]) for name in STATISTICS},
            "sensitivity": profile.sensitivity[layer].tolist(),
            **_extras_to_json(profile, layer),
        }
        for layer, kind in enumerate(profile.layer_type)
    ]
    return {
        "name": profile.name,
        "description": profile.description,
        "seed": profile.seed,
        **({"source": profile.source} if profile.source else {}),
        "formats": [
            each.name if each in known else {"name": each.name, "bits": each.bits, "kind": each.kind}
            for each in profile.formats
        ],
        **({"tied_layers": [list(each) for each in profile.tied_layers]} if profile.tied_layers else {}),
        **({"provenance": dict(profile.provenance)} if profile.provenance else {}),
        "layers": layers,
    }


def _extras_to_json(profile: ModelProfile, layer: int) -> dict[str, Any]:
    row: dict[str, Any] = {}
    if profile.layer_names:
        row["name"] = profile.layer_names[layer]
    if profile.layer_shapes:
        row["shape"] = list(profile.layer_shapes[layer])
    if profile.layer_aliases and profile.layer_aliases[layer]:
        row["aliases"] = list(profile.layer_aliases[layer])
    if profile.channel_axes and profile.channel_axes[layer]:
        row["channel_axis"] = profile.channel_axes[layer]
    if profile.num_experts and profile.num_experts[layer] != 1:
        row["num_experts"] = profile.num_experts[layer]
    if profile.layer_bits is not None:
        row["bits"] = profile.layer_bits[layer].tolist()
    for kind in ("costs", "measurements"):
        if tables := getattr(profile, kind):
            row[kind] = row_to_json(tables, layer)
    return row


def parse_profile(data: object, file: str | os.PathLike[str] | None = None) -> ModelProfile:
    """Make a profile of parsed JSON; formats out of order are put in order of bits.

    Args:
        data: The published JSON form as Python objects.
        file: The file to name in errors.

    Raises:
        ProfileError: Something is missing, unknown, of the wrong type or out of bounds.
    """
    with blamed_on(file):
        if isinstance(data, dict) and "model" in data and "formats" not in data:
            cure = "Give the profile that it was made from; `evolve profile` writes one."
            raise ProfileError("this is an allocation, not a profile", cure=cure)
        top = parse_object(data, PROFILE_FIELDS, optional=_OPTIONAL_FIELDS)
        formats = [_parse_format(each) for each in top["formats"]]
        if not formats:
            raise fault_in("no formats", None, "formats", "at least one format", [])
        rows = [_parse_layer(each, f"layer {at}", len(formats)) for at, each in enumerate(top["layers"])]
        order = sorted(range(len(formats)), key=lambda at: formats[at].bits)
        top["tied_layers"] = parse_ties(top.get("tied_layers", []))
        columns: dict[str, Any] = {
            name: np.array([row[name] for row in rows]) for name in ("num_params", *STATISTICS)
        }
        profile = ModelProfile(
            formats=tuple(formats[at] for at in order),
            layer_type=tuple(row["layer_type"] for row in rows),
            layer_index=np.array([row["layer_idx"] for row in rows]),
            sensitivity=np.array([[row["sensitivity"][at] for at in order] for row in rows]),
            layer_names=parse_column("name", rows, "a name"),
            layer_shapes=parse_column("shape", rows, "a shape"),
            layer_aliases=tuple(row.get("aliases", ()) for row in rows),
            channel_axes=tuple(row.get("channel_axis", 0) for row in rows),
            num_experts=tuple(row.get("num_experts", 1) for row in rows),
            layer_bits=parse_table("bits", rows, order),
            costs=parse_tables("costs", rows, order),
            measurements=parse_tables("measurements", rows, order),
            **columns,
            **{name: top[name] for name in ("name", *_OPTIONAL_FIELDS) if name in top},
        )
        for at, row in enumerate(rows):
            for name, right in (("num_layers", len(rows)), ("total_params", profile.total_params)):
                if row[name] != right:
                    words = f"{right}, {LAYER_FIELDS[name].expected}"
                    raise fault_in("wrong", f"layer {at}", name, words, row[name])
        return profile


def _parse_format(data: object) -> PrecisionFormat:
    if isinstance(data, str):
        return get_format(data)
    row = parse_object(data, _FORMAT_FIELDS, place="formats")
    return PrecisionFormat(row["name"], row["bits"], row["kind"])


def _parse_layer(data: object, place: str, K: int) -> dict[str, Any]:
    row = parse_object(data, LAYER_FIELDS, _OPTIONAL_LAYER_FIELDS, place)
    curve = row["sensitivity"]
    if len(curve) != K:
        raise fault_in("wrong length", place, "sensitivity", f"{K} numbers, one a format", len(curve))
    row["sensitivity"] = [float(parse_value(each, SENSITIVITY, "sensitivity", place)) for each in curve]
    return row | {name: float(row[name]) for name in STATISTICS}
