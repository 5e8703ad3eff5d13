"""The journal of a profile: one line a measurement, so that a killed one goes on where it was.

The first line says what is measured. A last line that a kill cut off, and so does not end, is dropped and
measured again. Any other that cannot be read is an error, and stays for whoever reads it to remove.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evolve.errors import NetworkError

#: Seconds between two syncs: a killed process loses no line that it wrote, a machine that dies these.
_SYNC_EVERY = 0.5


class Journal:
    """An append-only file of JSON lines.

    Args:
        path: The file; it is made where it is not there.
        heading: What is measured, as JSON values.
        resume: Whether to go on with what is there.

    Raises:
        NetworkError: There is a journal and it is not to be resumed, or it is one of something else; or
            a line is damaged; or it cannot be written.
    """

    def __init__(self, path: Path, heading: Mapping[str, Any], resume: bool) -> None:
        self.path = path
        self.records: list[dict[str, Any]] = []
        heading = json.loads(json.dumps(heading))
        try:
            before = _whole_lines(path)
            if before and not resume:
                raise NetworkError(
                    "an unfinished profile is here",
                    file=path,
                    cure="Continue it with --resume, or remove the file.",
                )
            if before:
                first, *self.records = [self._parsed(*each) for each in enumerate(before, 1)]
                self._check(first, heading)
            self._file = path.open("ab")
            self._file.truncate(sum(len(line) + 1 for line in before))
        except OSError as fault:
            raise NetworkError(f"cannot be written ({fault.strerror})", file=path) from None
        self._synced = 0.0
        if not before:
            self._write(heading)

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record."""
        self.records.append(dict(record))
        self._write(record)

    def close(self) -> None:
        """Sync and close the file."""
        os.fsync(self._file.fileno())
        self._file.close()

    def _write(self, record: Mapping[str, Any]) -> None:
        self._file.write((json.dumps(record) + "\n").encode())
        self._file.flush()
        if time.monotonic() - self._synced > _SYNC_EVERY:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def _parsed(self, number: int, line: bytes) -> Any:
        try:
            found = json.loads(line)
            if number > 1:
                found["kind"]
        except (ValueError, TypeError, KeyError) as fault:
            cure = "Remove this line: what it held is measured again, and nothing else."
            if number == 1:
                cure = "It says what the other lines measured: restore it, or remove the file."
            raise NetworkError("damaged line", file=self.path, place=f"line {number}", cure=cure) from fault
        return found

    def _check(self, found: Any, heading: Mapping[str, Any]) -> None:
        found = found if isinstance(found, dict) else {}
        for key in {**heading, **found}:
            if heading.get(key) != found.get(key):
                raise NetworkError(
                    "the unfinished profile here is of something else",
                    file=self.path,
                    field=key,
                    expected=repr(heading.get(key)),
                    found=found.get(key),
                    cure="Give the same network, data and options, or remove the file. "
                    "Data must come in the same order each time: no unseeded shuffling.",
                )


def _whole_lines(path: Path) -> list[bytes]:
    """Return the lines of a file, without one that does not end."""
    if not path.exists():
        return []
    return path.read_bytes().split(b"\n")[:-1]
