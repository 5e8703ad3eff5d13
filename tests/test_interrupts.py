"""Interrupted or orphaned: what is begun is finished or stops, and nobody is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import IO

import pytest
from processes import (
    PATIENCE,
    assert_same,
    command,
    end,
    finish,
    generation,
    new_run,
    outputs,
    started,
)


def test_workers_of_a_killed_benchmark_end_too(tmp_path):
    """They are told nothing, and would otherwise search on for as long as their run takes."""
    bench = command(
        "bench", "--strategies", "random", "--seeds", "2", "--evaluations", "1000000", "--workers", "2"
    )
    with started([*bench, "--name", "b"], tmp_path) as process:
        journals = [tmp_path / "runs" / "bench-b" / "random" / f"seed-{seed}" for seed in range(2)]
        while process.poll() is None and not all(any(each.glob("journal*")) for each in journals):
            time.sleep(0.05)
        process.kill()
        process.wait()
        assert process.returncode == -signal.SIGKILL, process.stderr and process.stderr.read()
        written, quiet = -1, 0
        for _ in range(60):
            before, written = written, sum((each / "journal.jsonl").stat().st_size for each in journals)
            quiet = quiet + 1 if written == before else 0
            if quiet == 3:
                return
            time.sleep(1)
        pytest.fail("its workers are still searching")


def read_until(stream: IO[str] | None, word: str) -> str:
    assert stream is not None
    told = ""
    for line in stream:
        told += line
        if word in line:
            return told
    raise AssertionError(f"no {word!r} in {told!r}")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_interrupted_once_the_generation_is_finished_and_committed(tmp_path, workers):
    # The whole group gets the signal, as from a terminal.
    with started([*new_run("--no-figures"), "--workers", workers], tmp_path) as process:
        read_until(process.stderr, "generation 1/6")
        os.killpg(process.pid, signal.SIGINT)
        told = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 130
    assert "finishing this generation" in told
    assert "stopped; continue with 'evolve resume k'" in told
    assert "Traceback" not in told
    assert 1 <= generation(tmp_path) < 6
    assert not (tmp_path / "reports").exists()
    end(tmp_path)


def test_interrupted_while_workers_start(tmp_path):
    with started([*new_run("--no-figures"), "--workers", "2"], tmp_path) as process:
        while not (tmp_path / "runs" / "k" / ".lock").exists():
            assert process.poll() is None
            time.sleep(0.001)
        for _ in range(4):
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        told = process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 130
    assert "Traceback" not in told
    assert "internal error" not in told
    end(tmp_path)


#: A plugin as slow as it is told, which says where it runs.
SLOW = '''
import os, time
from evolve.heuristics import heuristic, linear

@heuristic(role="user", source="here", parameters=[linear("edge", 0.1, 0.0, 0.5)])
def allocate(model, p):
    """Ends are FP32."""
    if "SLOW" in os.environ:
        with open(f"worker-{os.getpid()}", "w"):
            time.sleep(float(os.environ["SLOW"]))
    return model.where(model.edge_distance < p.edge, "FP32", "FP16")
'''
SLOW_RUN = (
    "run",
    "--generations",
    "2",
    "--population",
    "4",
    "--start-from",
    "slow,uniform_int8",
    "--name",
    "k",
)


def slow_folder(path: Path) -> Path:
    (path / "heuristics").mkdir(parents=True)
    (path / "heuristics" / "slow.py").write_text(SLOW)
    return path


def appeared(folder: Path) -> list[int]:
    """Wait for processes to run the slow rule; returns their numbers."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = [int(each.name.split("-")[1]) for each in folder.glob("worker-*")]
        if found:
            return found
        time.sleep(0.005)
    raise AssertionError("nobody came")


def test_interrupted_twice_it_stops_at_once(tmp_path):
    killed, whole = slow_folder(tmp_path / "killed"), slow_folder(tmp_path / "whole")
    with started(command(*SLOW_RUN, "--no-figures"), killed, SLOW="15") as process:
        assert appeared(killed) == [process.pid]
        start = time.monotonic()
        process.send_signal(signal.SIGINT)
        read_until(process.stderr, "finishing this generation; Ctrl-C again stops at once")
        process.send_signal(signal.SIGINT)
        told = process.communicate(timeout=PATIENCE)[1]
    assert time.monotonic() - start < 10
    assert process.returncode == 130
    assert told.strip() == "interrupted"
    assert generation(killed) == 0
    finish(command("resume", "k", "--no-figures"), killed)
    finish(command(*SLOW_RUN, "--no-figures"), whole)
    assert_same(killed, outputs(whole))


def alive(number: int) -> bool:
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{number}/stat")
    # Dead, but nobody has asked for its exit status yet.
    return not (status.exists() and status.read_text().rpartition(")")[2].split()[0] == "Z")


def test_workers_end_with_the_process_they_work_for(tmp_path):
    """Killed, it cannot tell them to; without a way to notice they would stay for ever."""
    folder = slow_folder(tmp_path)
    # The first in this process, to know the rules apart; the workers begin with the evaluation.
    with started(command(*SLOW_RUN, "--workers", "2", "--no-figures"), folder, SLOW="0.4") as process:
        deadline = time.monotonic() + PATIENCE
        workers: list[int] = []
        while not workers and time.monotonic() < deadline:
            workers = [number for number in appeared(folder) if number != process.pid]
            time.sleep(0.005)
        assert workers
        process.kill()
        process.wait()
        while any(alive(each) for each in workers) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not any(alive(each) for each in workers)


def test_two_cannot_work_on_one_run(tmp_path):
    folder = slow_folder(tmp_path)
    with started(command(*SLOW_RUN, "--no-figures"), folder, SLOW="15"):
        appeared(folder)
        for verb in ("resume", "report"):
            other = subprocess.run(
                command(verb, "k"), cwd=folder, capture_output=True, text=True, timeout=PATIENCE
            )
            assert other.returncode == 2
            assert other.stderr == "error: runs/k: another process works on this run\n"
