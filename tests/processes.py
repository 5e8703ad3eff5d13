"""Runs as processes of their own, begun, awaited and compared."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from io import StringIO
from pathlib import Path
from tempfile import mkdtemp

from evolve.cli import main

#: Long enough to be hit, with a plain function, a template without numbers and one with.
SEARCH = (
    *("--generations", "6", "--population", "20", "--seed", "3"),
    *("--start-from", "uniform_int8,hybrid,sensitivity_threshold,uniform_fp16,mixed_fp16_int8"),
)
#: As short as a run can be that has something to continue.
TINY = (
    *("run", "--generations", "2", "--population", "3"),
    *("--start-from", "uniform_fp16,sensitivity_threshold"),
)
PATIENCE = 60.0


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def command(verb: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "evolve", verb, *arguments]


def new_run(*arguments: str) -> list[str]:
    return command("run", *SEARCH, "--name", "k", *arguments)


def outputs(folder: Path) -> dict[str, bytes]:
    """All that equal runs have in common: everything but the manifest and the empty lock file.

    Of the index, which all runs share, a process that was killed may leave its own copy aside.
    """
    files = [each for part in ("runs", "reports") for each in (folder / part).rglob("*") if each.is_file()]
    skipped = ("manifest.json", ".lock", ".README.md")
    return {
        str(each.relative_to(folder)): each.read_bytes()
        for each in files
        if not each.name.startswith(skipped)
    }


def assert_same(folder: Path, expected: dict[str, bytes]) -> None:
    found = outputs(folder)
    assert sorted(found) == sorted(expected)
    assert [name for name in found if found[name] != expected[name]] == []


def finish(arguments: list[str], folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        arguments,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )


@cache
def undisturbed() -> tuple[dict[str, bytes], float]:
    """What the run gives that nobody kills, and how many seconds it takes."""
    folder = Path(mkdtemp())
    start = time.monotonic()
    try:
        finish(new_run("--no-figures"), folder)
        return outputs(folder), time.monotonic() - start
    finally:
        shutil.rmtree(folder)


def never_killed() -> dict[str, bytes]:
    return undisturbed()[0]


def in_this_process(folder: Path, *arguments: str) -> None:
    """Run a command here; its output is of no interest."""
    before = Path.cwd(), sys.argv
    os.chdir(folder)
    sys.argv = ["evolve", *arguments]
    sink = StringIO()
    try:
        with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
            main()
    except SystemExit as leaving:
        if leaving.code != 0:
            raise AssertionError(sink.getvalue()) from leaving
    finally:
        os.chdir(before[0])
        sys.argv = before[1]


def begin_or_resume(folder: Path) -> list[str]:
    if (folder / "runs" / "k" / "config.json").exists():
        return command("resume", "k", "--no-figures")
    return new_run("--no-figures")


@contextlib.contextmanager
def started(arguments: list[str], folder: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        arguments,
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def end(folder: Path) -> None:
    finish(begin_or_resume(folder), folder)
    assert_same(folder, never_killed())


def generation(folder: Path) -> int:
    try:
        return int(json.loads((folder / "runs" / "k" / "snapshot.json").read_text())["generation"])
    except (FileNotFoundError, ValueError):
        return 0
