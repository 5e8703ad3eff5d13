"""Keeps what was measured by its content, so that nothing is measured twice and a killed search goes on.

One file of JSON lines. A line that a kill cut off, or that is damaged, is passed over, and measured again.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evolve.errors import NetworkError
from evolve.networks.metrics import Measurement

_FIELDS = frozenset(("key", *Measurement.__dataclass_fields__))
#: Records from before broken rows were counted, when they were left out of the means: measured again.
_OUTDATED = _FIELDS - {"broken"}


def content_key(about: Mapping[str, Any], formats: Mapping[str, str]) -> str:
    """Return the SHA-256 of what is measured, as hexadecimal digits.

    Args:
        about: What decides the outcome besides the formats: hashes of weights and data, the task.
        formats: The format of each layer, by name, in any order.
    """
    text = json.dumps([dict(about), dict(formats)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


class MeasurementCache:
    """Measurements by content.

    Args:
        path: Where they are kept, made where it is not there once something is measured; None for memory
            only. Several processes may share it.

    Raises:
        NetworkError: It cannot be read.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._known: dict[str, Measurement] = {}
        self._torn = False
        if path is not None and path.exists():
            self._read(path)

    def find(self, key: str) -> Measurement | None:
        """Return what was measured under a key, None if nothing was."""
        return self._known.get(key)

    def add(self, key: str, measurement: Measurement) -> None:
        """Keep a measurement.

        Raises:
            NetworkError: It cannot be written.
        """
        self._known[key] = measurement
        if self._path is None:
            return
        line = json.dumps({"key": key, **asdict(measurement)}) + "\n"
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # One write of one line at the end of the file: those of other processes are not mixed with it.
            place = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                os.write(place, (("\n" if self._torn else "") + line).encode())
            finally:
                os.close(place)
        except OSError as fault:
            cure = "Name another file: --cache FILE."
            raise NetworkError(f"cannot be written ({fault.strerror})", file=self._path, cure=cure) from None
        self._torn = False

    def _read(self, path: Path) -> None:
        try:
            data = path.read_bytes()
        except OSError as fault:
            raise NetworkError(f"cannot be read ({fault.strerror})", file=path) from None
        self._torn = bool(data) and not data.endswith(b"\n")
        is_cache = not data.count(b"\n")
        for line in data.split(b"\n"):
            record = _record(line)
            if record is None:
                continue
            is_cache |= record.keys() in (_FIELDS, _OUTDATED)
            if record.keys() == _FIELDS:
                key = record.pop("key")
                self._known[key] = Measurement(**record)
        if not is_cache:
            words = "measurements as check-network keeps them"
            cure = "Name another file: --cache FILE."
            raise NetworkError("no cache", file=path, expected=words, cure=cure)


def _record(line: bytes) -> dict[str, Any] | None:
    """Return the object that a line holds, None if it is none or was cut off."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) else None
