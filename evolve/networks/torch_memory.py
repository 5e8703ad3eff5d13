"""Which tensors of a recorded network share memory, and what follows for running parts of it."""

from __future__ import annotations

import torch
from torch.multiprocessing.reductions import StorageWeakRef

from evolve.networks.network import Value


class SharedMemory:
    """Which values share memory, and which spans of calls must stay together for it."""

    def __init__(self) -> None:
        self._storage: dict[Value, int] = {}
        self._shares: dict[int, set[Value]] = {}
        self._born: dict[int, int] = {}
        self._stale: set[Value] = set()
        self._last: dict[int, int] = {}
        self._references: list[StorageWeakRef] = []

    def make(self, tensor: torch.Tensor, value: Value, at: int) -> None:
        """Note that a call made a tensor; −1 stands for before the first call."""
        reference = StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call] # torch's
        # As long as it is referred to, no other memory gets its number.
        self._references.append(reference)
        storage = int(reference.cdata)
        self._storage[value] = storage
        self._shares.setdefault(storage, set()).add(value)
        self._born.setdefault(storage, at)

    def write(self, before: Value, after: Value, at: int) -> None:
        """Note that a call wrote into a value, which has another name from then on."""
        storage = self._storage[before]
        shares = self._shares[storage]
        shares.discard(before)
        self._stale |= shares
        shares.add(after)
        self._storage[after] = storage
        if storage in self._last:
            self._last[storage] = at

    def read(self, value: Value, at: int) -> None:
        """Note that a call read a value."""
        if value in self._stale:
            self._last[self._storage[value]] = at

    def spans(self) -> list[tuple[int, int]] | None:
        """Return first and last call of each span, None if one began before the network ran."""
        found = [(self._born[storage], last) for storage, last in self._last.items()]
        return None if any(first < 0 for first, _ in found) else sorted(found)

    def shared(self) -> frozenset[Value]:
        """Return the values in memory that is read after it was written through another view."""
        return frozenset(value for value, storage in self._storage.items() if storage in self._last)
