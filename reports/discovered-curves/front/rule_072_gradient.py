"""Allocates a number format to each layer of a network: candidate db7083c42aa1.

Layers of type Embedding go to FP16. Of the rest, those of type Conv go to FP16. Of the
rest, those whose share of the weights is above 0.5868 % go to FP16. Of the rest, those
whose gradient sensitivity is above 0.385 go to FP32. All others go to FP16.

Needs numpy. Use it as a program, or import its function ``allocate``:

    python rule_072_gradient.py profile.json
    python rule_072_gradient.py profile.json --json

The profile of a model is a JSON object with two lists. `formats` has the number formats
to choose from: names like FP16, or objects with name, bits (per weight) and kind.
`layers` has an object for each layer, of which this rule reads:

- layer_type: one of Embedding, Conv, Linear, Attention, LayerNorm, Classifier
- num_params: number of weights
- gradient_sensitivity: gradient sensitivity

What it was measured to do:

- train: 96.21 % of the proven optimum
- valid: 96.24 % of the proven optimum
- test: 96.14 % of the proven optimum
- level: gradient
- complexity: 72 nodes of syntax
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np

# Bits per weight of the formats that a profile may give by name alone.
KNOWN_FORMATS = {
    "INT2": 2,
    "INT3": 3,
    "INT4": 4,
    "MXFP4": 4.25,
    "NF4": 4.25,
    "NVFP4": 4.5,
    "INT5": 5,
    "INT6": 6,
    "FP8_E4M3": 8,
    "FP8_E5M2": 8,
    "INT8": 8,
    "BF16": 16,
    "FP16": 16,
    "FP32": 32,
}
LAYER_TYPES = ("Embedding", "Conv", "Linear", "Attention", "LayerNorm", "Classifier")

# The numbers of the rule, which reads them as p.NAME.
PARAMETERS = {
    "param_fraction": 0.0058678,
    "gradient_sensitivity": 0.385,
}


def rule(model, p):
    embedding = model.is_type("Embedding")
    conv = model.is_type("Conv")
    high_param_fraction = model.param_fraction > p.param_fraction
    high_gradient_sensitivity = model.gradient_sensitivity > p.gradient_sensitivity
    return model.select(
        (embedding, "FP16"),
        (conv, "FP16"),
        (high_param_fraction, "FP16"),
        (high_gradient_sensitivity, "FP32"),
        otherwise="FP16",
    )


class ProfileError(ValueError):
    """The profile cannot be used; the message says why."""


class Model:
    """What the rule sees: N layers as listed, and K formats by increasing bits."""

    def __init__(self, profile: dict) -> None:
        layers, formats = entries(profile, "layers"), formats_of(profile)
        for at, layer in enumerate(layers):
            if not isinstance(layer, dict):
                raise ProfileError(f"layer {at}: expected an object")
        order = sorted(range(len(formats)), key=lambda at: formats[at][1])
        self.num_layers = len(layers)
        self.formats = tuple(formats[at][0] for at in order)
        self.layer_type = [layer.get("layer_type") for layer in layers]
        for at, name in enumerate(self.layer_type):
            if name not in LAYER_TYPES:
                known = ", ".join(LAYER_TYPES)
                raise ProfileError(f"layer {at}: type {name!r} is none of {known}")
        self.num_params = column(layers, "num_params", "a number from 1", low=1)
        self.param_fraction = self.num_params / self.num_params.sum()
        self.gradient_sensitivity = column(layers, "gradient_sensitivity")

    def is_type(self, *names):
        """Return whether each layer is of one of these types."""
        return np.isin(self.layer_type, names)

    def _index(self, choice):
        """Return the index of a format given by name; indices stay as they are."""
        if not isinstance(choice, str):
            return choice
        if choice not in self.formats:
            found = ", ".join(self.formats)
            raise ProfileError(f"formats: the rule needs {choice}, found {found}")
        return np.uint8(self.formats.index(choice))

    def select(self, *clauses, otherwise):
        """Return the format of the first clause (mask, format) that holds."""
        chosen = np.full(self.num_layers, self._index(otherwise), dtype=np.uint8)
        for mask, choice in reversed(clauses):
            chosen = np.where(mask, self._index(choice), chosen)
        return chosen


def entries(profile: dict, field: str) -> list:
    """Return a list of the profile that is not empty."""
    found = profile.get(field) if isinstance(profile, dict) else None
    if not isinstance(found, list) or not found:
        raise ProfileError(f"{field}: expected a list that is not empty")
    return found


def formats_of(profile: dict) -> list[tuple[str, float]]:
    """Return name and bits of the formats, as listed."""
    formats: dict[str, float] = {}
    for each in entries(profile, "formats"):
        if isinstance(each, dict):
            name, bits = str(each.get("name")), each.get("bits")
        else:
            name, bits = str(each), KNOWN_FORMATS.get(str(each))
            if bits is None:
                cure = "describe it as an object with name, bits and kind"
                raise ProfileError(f"formats: {name} is unknown; {cure}")
        if name in formats:
            raise ProfileError(f"formats: {name} is given twice")
        place = f"formats: {name}: bits"
        formats[name] = number(bits, place, "a positive number", low=1e-9)
    return list(formats.items())


def number(value, place: str, expected: str, low: float = -1e300, high: float = 1e300):
    """Return a value that must be a number, and no smaller or larger than this."""
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not low <= value <= high:
        raise ProfileError(f"{place}: expected {expected}, found {value!r:.60}")
    return value


def column(layers: list, field: str, expected: str = "a number", low: float = -1e300):
    """Return a field of all layers as an array."""
    values = np.empty(len(layers))
    for at, layer in enumerate(layers):
        values[at] = number(layer.get(field), f"layer {at}: {field}", expected, low)
    return values


def allocate(profile: dict) -> list[str]:
    """Return the name of a format for each layer, in the order of the profile."""
    model = Model(profile)
    # The rule computes with arrays only, so that it could try many parameters at once.
    arrays = {name: np.array([[value]]) for name, value in PARAMETERS.items()}
    p = SimpleNamespace(**arrays)
    with np.errstate(all="ignore"):
        choices = rule(model, p)
    return [model.formats[choice] for choice in np.ravel(choices)]


def read(file: str) -> dict:
    """Return the parsed JSON of a file."""
    try:
        return json.loads(Path(file).read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise ProfileError(error.strerror) from None
    except (ValueError, RecursionError) as error:
        raise ProfileError(f"is not JSON: {error}") from None


def main() -> int:
    """Print the format of each layer of the profile given on the command line."""
    as_written = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=as_written)
    parser.add_argument("profile", help="a JSON file")
    parser.add_argument("--json", action="store_true", help="print the formats as JSON")
    arguments = parser.parse_args()
    try:
        profile = read(arguments.profile)
        formats = allocate(profile)
    except ProfileError as error:
        print(f"{arguments.profile}: {error}", file=sys.stderr)
        return 2
    if arguments.json:
        print(json.dumps(formats))
        return 0
    lines = ["layer  type        format"]
    for at, (layer, name) in enumerate(zip(profile["layers"], formats)):
        index, kind = str(layer.get("layer_idx", at)), str(layer.get("layer_type"))
        lines.append(f"{index:>5}  {kind:<12}{name}")
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
