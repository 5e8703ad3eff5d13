"""Packs codes into bytes: whole bits each, or several symbols of an odd number of levels in a word.

Everything is little-endian: the first code lies in the lowest bits of the first byte, the first symbol of
a word is its lowest digit. A last byte or word is filled up with zeros.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from evolve.errors import InputError

Bytes = NDArray[np.uint8]
Symbols = NDArray[np.unsignedinteger[Any]]

WORDS = (8, 16, 32, 64)
"""Widths of the words that symbols are packed into, in bits."""


class Packing(Protocol):
    """A way to store codes."""

    def num_bytes(self, count: int) -> int:
        """Return the bytes that so many codes take."""

    def pack(self, symbols: Symbols) -> Bytes:
        """Return codes of shape (n,) as bytes, (num_bytes(n),)."""

    def unpack(self, packed: Bytes, count: int) -> Symbols:
        """Return the first codes of what was packed, (count,)."""


@dataclass(frozen=True)
class BitPacking:
    """Codes of the same whole number of bits, without gaps.

    Attributes:
        width: Bits a code: 1 to 8, 16 or 32.
    """

    width: int

    def num_bytes(self, count: int) -> int:
        """Return the bytes that so many codes take."""
        return -(-count * self.width // 8)

    def pack(self, symbols: Symbols) -> Bytes:
        """Return codes of shape (n,) as bytes, (num_bytes(n),).

        Raises:
            InputError: A code has more bits than the width.
        """
        _check_symbols(symbols, 2**self.width)
        if self.width % 8 == 0:
            return symbols.astype(f"<u{self.width // 8}").view(np.uint8)
        column = symbols.astype(np.uint8)[:, None]
        bits = np.unpackbits(column, axis=1, count=self.width, bitorder="little")
        return np.packbits(bits, bitorder="little")

    def unpack(self, packed: Bytes, count: int) -> Symbols:
        """Return the first codes of what was packed, (count,).

        Raises:
            InputError: There are not as many bytes as so many codes take.
        """
        _check_bytes(packed, self.num_bytes(count))
        if self.width % 8 == 0:
            return np.ascontiguousarray(packed).view(f"<u{self.width // 8}")
        bits = np.unpackbits(packed, count=count * self.width, bitorder="little")
        symbols: Symbols = np.packbits(bits.reshape(count, self.width), axis=1, bitorder="little")[:, 0]
        return symbols


@dataclass(frozen=True)
class LevelPacking:
    """Symbols of any number of levels, as many in a word as fit: the digits of a number in that base.

    Five ternary symbols lie in a byte (1.6 bits each, the "1.58-bit" encoding), seven of 23 levels in
    32 bits (4.57 bits each, the "4.6-bit" encoding).

    Attributes:
        levels: Number of values of a symbol, 2 to 256.
        word: Bits of a word: 8, 16, 32 or 64.
    """

    levels: int
    word: int

    @property
    def per_word(self) -> int:
        """Symbols in a word."""
        return max(count for count in range(1, self.word + 1) if self.levels**count <= 2**self.word)

    def num_bytes(self, count: int) -> int:
        """Return the bytes that so many symbols take."""
        return -(-count // self.per_word) * self.word // 8

    def pack(self, symbols: Symbols) -> Bytes:
        """Return symbols of shape (n,) as bytes, (num_bytes(n),).

        Raises:
            InputError: A symbol is not below the number of levels.
        """
        _check_symbols(symbols, self.levels)
        digits = np.zeros((-(-len(symbols) // self.per_word), self.per_word), np.uint64)
        digits.reshape(-1)[: len(symbols)] = symbols
        words = (digits * self._powers).sum(axis=1, dtype=np.uint64)
        packed: Bytes = words.astype(f"<u{self.word // 8}").view(np.uint8)
        return packed

    def unpack(self, packed: Bytes, count: int) -> Symbols:
        """Return the first symbols of what was packed, (count,).

        Raises:
            InputError: There are not as many bytes as so many symbols take, or a word is too large.
        """
        _check_bytes(packed, self.num_bytes(count))
        words = np.ascontiguousarray(packed).view(f"<u{self.word // 8}").astype(np.uint64)
        largest = self.levels**self.per_word - 1
        if len(words) and int(words.max()) > largest:
            raise InputError(
                "packed word out of bounds", expected=f"at most {largest}", found=int(words.max())
            )
        digits = words[:, None] // self._powers % np.uint64(self.levels)
        symbols: Symbols = digits.astype(np.uint8).reshape(-1)[:count]
        return symbols

    @property
    def _powers(self) -> NDArray[np.uint64]:
        return np.array([self.levels**digit for digit in range(self.per_word)], np.uint64)


def densest(levels: int) -> LevelPacking:
    """Return the packing of the fewest bits a symbol, of these the one of the shortest word."""
    packings = [LevelPacking(levels, word) for word in WORDS if levels <= 2**word]
    return min(packings, key=lambda each: each.word / each.per_word)


def _check_symbols(symbols: Symbols, levels: int) -> None:
    if symbols.ndim != 1 or (symbols.size and int(symbols.max()) >= levels):
        found = f"shape {symbols.shape}, up to {symbols.max(initial=0)}"
        raise InputError("bad codes", expected=f"codes of shape (n,) below {levels}", found=found)


def _check_bytes(packed: Bytes, num_bytes: int) -> None:
    if packed.dtype != np.uint8 or packed.shape != (num_bytes,):
        found = f"{packed.dtype} of shape {packed.shape}"
        raise InputError("bad packed codes", expected=f"uint8 of shape ({num_bytes},)", found=found)
