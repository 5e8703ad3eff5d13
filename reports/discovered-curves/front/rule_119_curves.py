"""Allocates a number format to each layer of a network: candidate 3e68706f22e1.

In a first pass, each layer goes to the format of least cost, where the cost is the
share of the weights times the number of bits per weight plus 122.2 times the predicted
loss. In the end, each layer goes to the format of least cost, where the cost is the
share of the weights times the number of bits per weight plus 157.6 times the model's
total value of (the share of the weights times the number of bits per weight in the
first pass) times (the model's total predicted loss in the first pass plus 0.0581) times
the predicted loss.

Needs numpy. Use it as a program, or import its function ``allocate``:

    python rule_119_curves.py profile.json
    python rule_119_curves.py profile.json --json

The profile of a model is a JSON object with two lists. `formats` has the number formats
to choose from: names like FP16, or objects with name, bits (per weight) and kind.
`layers` has an object for each layer, of which this rule reads:

- num_params: number of weights
- sensitivity: a list, one for each format: the share of accuracy lost with this layer
  alone in it

What it was measured to do:

- train: 99.99 % of the proven optimum
- valid: 99.99 % of the proven optimum
- test: 99.99 % of the proven optimum
- level: curves
- complexity: 119 nodes of syntax
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

# The numbers of the rule, which reads them as p.NAME.
PARAMETERS = {
    "first_price": 122.2,
    "second_price": 157.6,
    "weight": 0.0581,
}


def rule(model, p):
    weight = model.param_fraction
    loss = model.loss
    first = model.cheapest(weight * model.bits + p.first_price * loss)
    spent = model.total(weight * model.bits_of(first))
    lost = model.total(model.pick(loss, first))
    price = p.second_price * (spent * (lost + p.weight))
    return model.cheapest(weight * model.bits + price * loss)


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
        # (K, 1, 1) bits per weight.
        self.bits = np.array([float(formats[at][1]) for at in order])[:, None, None]
        self.num_params = column(layers, "num_params", "a number from 1", low=1)
        self.param_fraction = self.num_params / self.num_params.sum()
        self._sensitivity = sensitivity_table(layers, len(formats))[order]
        # (K, 1, N) losses that add up where retained accuracies multiply.
        self.loss = (-np.log1p(-self._sensitivity) + 0.0)[:, None, :]

    def cheapest(self, cost):
        """Return each layer's format of least cost, the narrower at a tie."""
        costs = np.broadcast_to(cost, (len(self.formats), 1, self.num_layers))
        return np.argmin(costs, axis=0).astype(np.uint8)

    def _full(self, values):
        """Return values with one entry for each layer."""
        shape = np.broadcast_shapes(np.shape(values), (self.num_layers,))
        return np.broadcast_to(values, shape)

    def total(self, values):
        """Return, at every layer, the sum over all layers."""
        full = self._full(values)
        # Rounded as when the rule was made; sum() may differ in the last digit.
        total = np.add.reduceat(full, [0], axis=-1, dtype=float)
        return np.broadcast_to(total, full.shape)

    def bits_of(self, choices):
        """Return the bits per weight of chosen formats."""
        return self.bits[:, 0, 0][choices]

    def pick(self, table, choices):
        """Return the values of a (K, 1, N) table at chosen formats."""
        full = np.broadcast_to(table, (len(self.formats), 1, self.num_layers))
        rows = np.broadcast_to(choices, (1, 1, self.num_layers)).astype(int)
        return np.take_along_axis(full, rows, axis=0)[0]


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


def sensitivity_table(layers: list, K: int):
    """Return (K, N) the loss of accuracy with one layer alone in a format."""
    rows = []
    for at, layer in enumerate(layers):
        values, place = layer.get("sensitivity"), f"layer {at}: sensitivity"
        if not isinstance(values, list) or len(values) != K:
            raise ProfileError(f"{place}: expected {K} numbers, one for each format")
        limits = "numbers in [0, 1)", 0, 1 - 2**-53
        rows.append([number(each, place, *limits) for each in values])
    return np.array(rows, dtype=float).T


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
