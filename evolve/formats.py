"""Number formats and the registry that knows them by name."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from evolve.errors import FormatError

Kind = Literal["integer", "float", "codebook"]


@dataclass(frozen=True)
class PrecisionFormat:
    """A number format that a layer's weights can be stored in.

    Attributes:
        name: The name that profiles and rules use.
        bits: Bits per weight, scales and zero points counted (INT4 in groups of 32 with
            FP16 scales has 4.5).
        kind: ``integer``, ``float`` or ``codebook``.
    """

    name: str
    bits: float
    kind: Kind

    def __post_init__(self) -> None:
        if not self.name or not self.name.replace("_", "").isalnum():
            raise FormatError(
                "bad format name", field="name", expected="letters, digits and underscores", found=self.name
            )
        if isinstance(self.bits, bool) or not isinstance(self.bits, int | float):
            raise FormatError(
                "bad format", place=self.name, field="bits", expected="a number", found=self.bits
            )
        if not (math.isfinite(self.bits) and self.bits > 0):
            raise FormatError(
                "bad format", place=self.name, field="bits", expected="a positive number", found=self.bits
            )
        if self.kind not in get_args(Kind):
            raise FormatError(
                "bad format",
                place=self.name,
                field="kind",
                expected=f"one of {', '.join(get_args(Kind))}",
                found=self.kind,
            )


_REGISTRY: dict[str, PrecisionFormat] = {}


def register_format(new: PrecisionFormat) -> PrecisionFormat:
    """Make a format known by name to every profile loaded afterwards, and return it.

    Raises:
        FormatError: Another format has this name already.
    """
    known = _REGISTRY.setdefault(new.name, new)
    if known != new:
        raise FormatError(
            "format name taken", place=new.name, expected=f"another name than that of {known}", found=new
        )
    return new


def known_formats() -> tuple[PrecisionFormat, ...]:
    """Return all known formats, by increasing bits, then by name."""
    return tuple(sorted(_REGISTRY.values(), key=lambda each: (each.bits, each.name)))


def get_format(name: str) -> PrecisionFormat:
    """Return the known format of that name; a profile describes any other one in place.

    Raises:
        FormatError: No such format is known.
    """
    try:
        return _REGISTRY[name]
    except KeyError:
        names = ", ".join(each.name for each in known_formats())
        raise FormatError(
            "unknown format",
            field="formats",
            expected=f"one of {names}, or an object with name, bits and kind",
            found=name,
        ) from None


def get_formats(names: Iterable[str]) -> tuple[PrecisionFormat, ...]:
    """Return the known formats of these names, in the order given."""
    return tuple(get_format(name) for name in names)


# Nominal bits: an integer format's scales, one a channel, are not counted; those of the blocks of MXFP4, NF4
# and NVFP4 are. `evolve.quantizers` knows many variants more and counts exactly for a shape; a profile
# describes such a format in place.
for _format in (
    PrecisionFormat("INT2", 2, "integer"),
    PrecisionFormat("INT3", 3, "integer"),
    PrecisionFormat("INT4", 4, "integer"),
    PrecisionFormat("MXFP4", 4.25, "float"),
    PrecisionFormat("NF4", 4.25, "codebook"),
    PrecisionFormat("NVFP4", 4.5, "float"),
    PrecisionFormat("INT5", 5, "integer"),
    PrecisionFormat("INT6", 6, "integer"),
    PrecisionFormat("INT8", 8, "integer"),
    PrecisionFormat("FP8_E4M3", 8, "float"),
    PrecisionFormat("FP8_E5M2", 8, "float"),
    PrecisionFormat("BF16", 16, "float"),
    PrecisionFormat("FP16", 16, "float"),
    PrecisionFormat("FP32", 32, "float"),
):
    register_format(_format)
