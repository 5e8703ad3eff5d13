"""The journal of a profile: one line a measurement, so that a killed one goes on where it was.

The first line says what is measured. A last line that a kill cut off, and so does not end, is dropped and
measured again. Any other that cannot be read is an error, and stays for whoever reads it to remove. While a
process writes a journal, no other may.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO

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
            another process writes it; or a line is damaged; or it cannot be written.
    """

    def __init__(self, path: Path, heading: Mapping[str, Any], resume: bool) -> None:
        self.path = path
        self.records: list[dict[str, Any]] = []
        heading = json.loads(json.dumps(heading))
        self._synced = 0.0
        try:
            self._file = _open_locked(path)
            with ExitStack() as undo:
                undo.callback(self._file.close)
                self._begin(heading, resume)
                undo.pop_all()
        except OSError as fault:
            raise NetworkError(f"cannot be written ({fault.strerror})", file=path) from None

    def _begin(self, heading: Mapping[str, Any], resume: bool) -> None:
        """Read what is there, or write the heading."""
        # Without a last line that does not end.
        before = self.path.read_bytes().split(b"\n")[:-1]
        if before and not resume:
            raise NetworkError(
                "an unfinished profile is here",
                file=self.path,
                cure="Continue it with --resume, or remove the file.",
            )
        if before:
            first, *self.records = [self._parsed(*each) for each in enumerate(before, 1)]
            self._check(first, heading)
        self._file.truncate(sum(len(line) + 1 for line in before))
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


def _open_locked(path: Path) -> BinaryIO:
    """Open a file to append to, and keep it to this process until it is closed.

    Raises:
        NetworkError: Another process has it.
        OSError: It cannot be written.
    """
    while True:
        file = path.open("ab")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.close()
            raise NetworkError(
                "another process works on this profile",
                file=path,
                cure="Wait until it has ended, or choose another --output.",
            ) from None
        except OSError:
            return file  # this file system has no locks
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()  # its writer has ended, and removed it in between
