"""Killed anywhere, resumed exactly."""

from __future__ import annotations

import os
import random
import signal
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from processes import (
    TINY,
    assert_same,
    begin_or_resume,
    command,
    end,
    finish,
    generation,
    in_this_process,
    outputs,
    started,
    undisturbed,
)


def kill_when(folder: Path, moment: Callable[[float], bool]) -> bool:
    """Begin or resume, and kill once a condition on the seconds passed holds; False if it ended before."""
    with started(begin_or_resume(folder), folder) as process:
        start = time.monotonic()
        while process.poll() is None and not moment(time.monotonic() - start):
            time.sleep(0.001)
        process.kill()
        process.wait()
        assert process.returncode in (0, -signal.SIGKILL), process.stderr and process.stderr.read()
        return process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("seed", range(4))
def test_killed_at_random_moments_and_resumed(tmp_path, seed):
    """Five kills each, spread over start-up, search and report, resumes killed in their turn."""
    draw = random.Random(seed)
    duration = undisturbed()[1]
    kills = 0
    while kills < 5:
        delay = draw.uniform(0, duration)
        kills += kill_when(tmp_path, lambda seconds, delay=delay: seconds >= delay)
    end(tmp_path)


def test_killed_at_every_stage_and_resumed(tmp_path):
    """Whatever the machine's speed, each stage is hit: begun, searching, ended, reporting."""
    run, report = tmp_path / "runs" / "k", tmp_path / "reports"
    stages: list[Callable[[float], bool]] = [
        lambda seconds: seconds > 0.02,
        lambda _: (tmp_path / "runs").exists(),
        lambda _: run.exists(),
        lambda _: generation(tmp_path) >= 1,
        lambda _: generation(tmp_path) >= 3,
        lambda _: (run / "champion.json").exists(),
        lambda _: report.exists(),
    ]
    kills = sum(kill_when(tmp_path, moment) for moment in stages)
    assert kills >= 5  # The last two are a matter of milliseconds.
    end(tmp_path)
    assert finish(command("verify", "k"), tmp_path).stdout == "k: every number holds\n"


#: What changes a disk. A kill between two of them leaves what the first of them did.
OPERATIONS = (
    *((os, name) for name in ("fsync", "mkdir", "rename", "replace", "rmdir", "unlink")),
    (Path, "write_bytes"),
    (Path, "write_text"),
)


def killed_at(operation: int, folder: Path) -> int:
    """Run in a forked child that dies right before its n-th change of the disk; returns its exit status."""
    with warnings.catch_warnings():
        # Python 3.12 warns of threads; the child starts none and ends without clean-up.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        left = operation

        def counted(real: Callable[..., object]) -> Callable[..., object]:
            def wrapped(*arguments: object, **options: object) -> object:
                nonlocal left
                left -= 1
                if left < 0:
                    os._exit(9)
                return real(*arguments, **options)

            return wrapped

        for owner, name in OPERATIONS:
            setattr(owner, name, counted(getattr(owner, name)))
        in_this_process(folder, *TINY, "--name", "k", "--no-figures")
    except BaseException:  # noqa: BLE001 - nothing of the child may reach pytest
        os._exit(1)
    os._exit(0)


def test_killed_before_every_change_of_the_disk_and_resumed(tmp_path):
    """The run of a few generations, killed once at each place where a kill can make a difference."""
    (tmp_path / "whole").mkdir()
    in_this_process(tmp_path / "whole", *TINY, "--name", "k", "--no-figures")
    expected = outputs(tmp_path / "whole")
    operation, status, states = 0, 9, set()
    while status == 9:
        folder = tmp_path / str(operation)
        folder.mkdir()
        status = killed_at(operation, folder)
        assert status in (0, 9)
        states.add((generation(folder), frozenset(outputs(folder))))
        if (folder / "runs" / "k").exists():
            in_this_process(folder, "resume", "k", "--no-figures")
        else:
            in_this_process(folder, *TINY, "--name", "k", "--no-figures")
        leftovers = [each for each in folder.rglob(".*") if each.name != ".lock"]
        assert {each.name.rstrip("0123456789") for each in leftovers} <= {".README.md."}
        assert_same(folder, expected)
        operation += 1
    assert operation > 20
    assert len(states) > 8
