"""A quantizer: everything about storing a weight tensor in one number format."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evolve.errors import InputError
from evolve.formats import Kind, PrecisionFormat
from evolve.quantizers.encoding import Encoded
from evolve.quantizers.grouping import Granularity, Layout, layout
from evolve.quantizers.packing import BitPacking, Packing
from evolve.quantizers.schemes import Parts, Scheme

FloatArray = NDArray[np.float32]

_LARGEST = np.finfo(np.float32).max


@dataclass(frozen=True)
class Quantizer:
    """Stores weight tensors in a number format.

    Axis 0 of a tensor is the output channel: (out, in) of a linear layer, (out, in, height, width) of a
    convolution, (rows, dimensions) of an embedding; a tensor of one axis is one channel. Groups run along
    the flattened other axes of a channel, the last of them may be shorter, and each has its own scale.

    Attributes:
        name: The format's name.
        kind: ``integer``, ``float`` or ``codebook``.
        scheme: How a group of weights is rounded.
        granularity: Which weights share a scale: ``tensor``, ``channel`` or so many of a channel.
        packing: How codes lie in bytes.
    """

    name: str
    kind: Kind
    scheme: Scheme
    granularity: Granularity
    packing: Packing

    def num_bytes(self, shape: tuple[int, ...]) -> int:
        """Return the bytes that a tensor of that shape takes: codes, scales and zero points.

        Raises:
            InputError: The shape has no axis or an empty one.
        """
        groups = self._layout(shape)
        return (
            self.packing.num_bytes(groups.num_weights)
            + groups.num_groups * self.scheme.group_bytes
            + self._zero_points.num_bytes(self._num_zero_points(groups))
            + self.scheme.tensor_bytes
        )

    def bits(self, shape: tuple[int, ...]) -> float:
        """Return the bits per weight of a tensor of that shape, everything that is stored counted.

        Raises:
            InputError: The shape has no axis or an empty one.
        """
        return 8 * self.num_bytes(shape) / math.prod(shape)

    def format(self, shape: tuple[int, ...]) -> PrecisionFormat:
        """Return the format, with its exact bits per weight for a tensor of that shape.

        Raises:
            InputError: The shape has no axis or an empty one.
        """
        return PrecisionFormat(self.name, self.bits(shape), self.kind)

    def dequantized(self, weights: ArrayLike) -> FloatArray:
        """Return what is left of weights that were stored in the format, of the same shape, float32.

        The same as `decode` of `encode`, without packing.

        Args:
            weights: Finite floating-point numbers with at least one axis, none of them empty; those of
                another width are rounded to float32 first.

        Raises:
            InputError: The weights are no such array.
        """
        array = _check_weights(weights)
        groups = self._layout(array.shape)
        parts = self.scheme.encode(groups.split(array), groups.counts())
        return self._decoded(parts, groups).reshape(array.shape)

    def encode(self, weights: ArrayLike) -> Encoded:
        """Return the weights as they are stored in the format.

        Arguments and errors are those of `dequantized`.
        """
        array = _check_weights(weights)
        groups = self._layout(array.shape)
        parts = self.scheme.encode(groups.split(array), groups.counts())
        return Encoded(
            name=self.name,
            shape=array.shape,
            codes=self.packing.pack(groups.join(parts.symbols)),
            scales=parts.scales,
            zero_points=self._zero_points.pack(parts.zero_points),
            tensor_scale=parts.tensor_scale,
        )

    def decode(self, encoded: Encoded) -> FloatArray:
        """Return the weights that were stored, of their shape, float32.

        Raises:
            InputError: They were stored in another format, or parts are missing.
        """
        if encoded.name != self.name:
            raise InputError("encoded in another format", expected=self.name, found=encoded.name)
        groups = self._layout(encoded.shape)
        for field, length in (
            ("scales", groups.num_groups if self.scheme.group_bytes else 0),
            ("tensor_scale", 1 if self.scheme.tensor_bytes else 0),
        ):
            shape = getattr(encoded, field).shape
            if shape != (length,):
                raise InputError("bad shape", field=field, expected=f"({length},)", found=shape)
        symbols = self.packing.unpack(encoded.codes, groups.num_weights)
        zero_points = self._zero_points.unpack(encoded.zero_points, self._num_zero_points(groups))
        parts = Parts(
            groups.split(symbols), encoded.scales, zero_points.astype(np.uint8), encoded.tensor_scale
        )
        return self._decoded(parts, groups).reshape(encoded.shape)

    def _decoded(self, parts: Parts, groups: Layout) -> FloatArray:
        """Return the weights of these codes and scales in the order of the tensor, (n,)."""
        with np.errstate(over="ignore"):
            weights = groups.join(self.scheme.decode(parts))
        # A rounded scale can carry the largest numbers of float32 beyond it.
        return np.clip(weights, -_LARGEST, _LARGEST, out=weights)

    @property
    def _zero_points(self) -> BitPacking:
        return BitPacking(self.scheme.zero_point_bits or 8)

    def _num_zero_points(self, groups: Layout) -> int:
        return groups.num_groups if self.scheme.zero_point_bits else 0

    def _layout(self, shape: tuple[int, ...]) -> Layout:
        if not shape or min(shape) < 1:
            raise InputError(
                "no weights", field="shape", expected="one axis or more, none of them empty", found=shape
            )
        return layout(shape, self.granularity)


def _check_weights(weights: ArrayLike) -> FloatArray:
    """Return the weights as a contiguous float32 array."""
    array = np.asarray(weights)
    if array.dtype.kind != "f":
        raise InputError(
            "not floating-point", field="weights", expected="float32 numbers", found=str(array.dtype)
        )
    with np.errstate(over="ignore"):
        single = np.asarray(array, np.float32, order="C")
    if not np.isfinite(single).all():
        index = tuple(int(each) for each in np.argwhere(~np.isfinite(single))[0])
        raise InputError(
            "not finite",
            field=f"weights[{', '.join(map(str, index))}]",
            expected="finite float32 numbers",
            found=float(array[index]),
        )
    return single
