"""Packing: bit for bit back, in no more bytes than promised."""

from __future__ import annotations

import numpy as np
import pytest
import weight_tensors as _  # noqa: F401  (no deadlines)
from hypothesis import given
from hypothesis import strategies as st

from evolve.errors import InputError
from evolve.quantizers.catalogue import LEVELS
from evolve.quantizers.packing import WORDS, BitPacking, LevelPacking, densest

PACKINGS = [
    *(BitPacking(width) for width in (1, 2, 3, 4, 5, 6, 7, 8, 16, 32)),
    *(LevelPacking(levels, word) for levels in (2, 3, 5, 9, 23, 24, 25, 31, 255, 256) for word in WORDS),
]


def levels_of(packing):
    return packing.levels if isinstance(packing, LevelPacking) else 2**packing.width


@pytest.mark.parametrize("packing", PACKINGS, ids=str)
@given(count=st.integers(0, 200), seed=st.integers(0, 2**32 - 1))
def test_unpacking_gives_back_what_was_packed(packing, count, seed):
    symbols = np.random.default_rng(seed).integers(0, levels_of(packing), count, dtype=np.uint64)
    symbols = symbols.astype(np.uint32)
    packed = packing.pack(symbols)
    assert packed.dtype == np.uint8
    assert packed.shape == (packing.num_bytes(count),)
    np.testing.assert_array_equal(packing.unpack(packed, count), symbols)


@pytest.mark.parametrize("packing", PACKINGS, ids=str)
def test_the_largest_symbols_fit(packing):
    symbols = np.full(130, levels_of(packing) - 1, np.uint32)
    np.testing.assert_array_equal(packing.unpack(packing.pack(symbols), 130), symbols)


@pytest.mark.parametrize(
    ("levels", "word", "per_word"),
    [(3, 8, 5), (3, 32, 20), (3, 64, 40), (23, 32, 7), (23, 64, 14), (24, 64, 13), (25, 64, 13), (2, 64, 64)],
)
def test_symbols_in_a_word(levels, word, per_word):
    assert LevelPacking(levels, word).per_word == per_word
    assert levels**per_word <= 2**word < levels ** (per_word + 1)


def test_densest_words():
    assert densest(3) == LevelPacking(3, 8)
    assert densest(23) == LevelPacking(23, 32)
    assert densest(25) == LevelPacking(25, 64)
    for levels in range(3, 32, 2):
        packing = densest(levels)
        saves = packing.word / packing.per_word < np.ceil(np.log2(levels))
        assert saves == (levels in LEVELS)


def test_the_layout_is_little_endian():
    assert BitPacking(4).pack(np.array([1, 2, 3], np.uint8)).tolist() == [0x21, 0x03]
    assert BitPacking(3).pack(np.array([1, 2, 3], np.uint8)).tolist() == [0b11_010_001, 0b0]
    assert BitPacking(16).pack(np.array([0x0102], np.uint16)).tolist() == [2, 1]
    assert LevelPacking(3, 8).pack(np.array([1, 2, 0, 0, 2, 1], np.uint8)).tolist() == [1 + 6 + 162, 1]
    assert LevelPacking(23, 32).pack(np.array([22, 1], np.uint8)).tolist() == [45, 0, 0, 0]


@pytest.mark.parametrize("packing", [BitPacking(3), LevelPacking(7, 32)], ids=str)
def test_bad_codes_are_refused(packing):
    with pytest.raises(InputError, match="bad codes"):
        packing.pack(np.array([8], np.uint8))
    with pytest.raises(InputError, match="bad packed codes"):
        packing.unpack(np.zeros(1, np.uint8), 100)
    with pytest.raises(InputError, match="bad packed codes"):
        packing.unpack(np.zeros(packing.num_bytes(5), np.int8), 5)


def test_a_word_beyond_the_largest_number_is_refused():
    with pytest.raises(InputError, match="at most 242, found 243"):
        LevelPacking(3, 8).unpack(np.array([243], np.uint8), 5)
