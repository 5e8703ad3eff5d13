"""Files that people name for what is to be written: refused before anything is computed."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from evolve.errors import InputError

#: Bytes of a name. File systems take 255, and what stands beside a file until it is whole has a longer one.
LONGEST_NAME = 230


def check_output(
    path: Path,
    endings: tuple[str, ...],
    overwrite: bool = False,
    *,
    error: type[InputError] = InputError,
    inputs: Iterable[Path] = (),
) -> None:
    """Refuse a file that cannot be written, is there already, or is one of those that are read.

    Args:
        path: The file.
        endings: How its name may end.
        overwrite: Whether it may be there already.
        error: What to raise.
        inputs: Files that are read, and so never replaced.

    Raises:
        InputError: It is such a file.
    """
    # A name that is nothing but an ending is a hidden file without one.
    if not path.name[1:].endswith(endings):
        words = f"a name that ends in {' or '.join(endings)}"
        raise error("bad output", field="--output", expected=words, found=str(path))
    length = len(os.fsencode(path.name))
    if length > LONGEST_NAME:
        words = f"at most {LONGEST_NAME} bytes"
        raise error(
            "name too long", field="--output", expected=words, found=length, cure="Choose a shorter one."
        )
    try:
        if not path.parent.is_dir():
            raise error("no such folder", file=path.parent, field="--output", cure="Make it first.")
        if path.exists() and any(_is_same(path, each) for each in inputs):
            raise error("this file is read, and would be lost", file=path, cure="Choose another --output.")
        if path.exists() and not overwrite:
            raise error("exists already", file=path, cure="Choose another --output, or give --overwrite.")
    except OSError as fault:
        raise error(f"cannot be written ({fault.strerror})", file=path, field="--output") from None


def _is_same(path: Path, other: Path) -> bool:
    try:
        return path.samefile(other)
    except OSError:  # the other is not there
        return False
