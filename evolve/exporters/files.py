"""Reads the names a target has for layers, and writes exports."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from evolve.errors import InputError
from evolve.exporters.export import Export
from evolve.fields import read_json


def read_names(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read what a target calls layers: a JSON object of texts.

    Raises:
        InputError: The file cannot be read or holds something else.
    """
    try:
        names = read_json(Path(path))
    except InputError as fault:
        raise InputError(str(fault), file=path, field="--network-names") from None
    words = "an object: the target's name by the layer's"
    if not isinstance(names, dict):
        raise InputError("not an object", file=path, field="--network-names", expected=words)
    for layer, name in names.items():
        if not isinstance(name, str) or not name.strip():
            raise InputError("bad name", file=path, place=layer, expected="a text", found=name)
    return dict(names)


def save_exports(
    exports: Sequence[Export], output: Path, overwrite: bool = False, folder: bool = False
) -> dict[str, Path]:
    """Write exports; each file appears whole or not at all.

    Args:
        exports: One, which is written to the file ``output``, or several, which go into the folder.
        output: The file or the folder.
        overwrite: Whether files that are there may be replaced.
        folder: Whether one export goes into a folder too.

    Returns:
        The files by target.

    Raises:
        InputError: A file is there already or cannot be written.
    """
    texts = [(each.target, *next(iter(each.documents.items()))) for each in exports]
    folder = folder or len(exports) > 1
    if not folder and not output.is_dir():
        files = {texts[0][0]: output}
    else:
        files = {target: output / name for target, name, _ in texts}
    for file in files.values():
        if file.exists() and not overwrite:
            raise InputError("exists already", file=file, cure="Choose another --output, or --overwrite.")
    try:
        if folder:
            output.mkdir(exist_ok=True)
        for target, _, text in texts:
            _write(files[target], text)
    except OSError as fault:
        raise InputError(f"cannot be written ({fault.strerror})", file=output, field="--output") from None
    return files


def _write(file: Path, text: str) -> None:
    aside = file.with_name(f".{file.name}.{os.getpid()}.partial")
    try:
        with aside.open("w", encoding="utf-8") as opened:
            opened.write(text)
            opened.flush()
            os.fsync(opened.fileno())
        aside.replace(file)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
