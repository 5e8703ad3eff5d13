"""Same seed, same bytes; killed anywhere, resumed exactly."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from io import StringIO
from pathlib import Path
from tempfile import mkdtemp
from typing import IO

import pytest

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


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    """Journal, snapshot, champion and every file of the report, pictures included, wherever it is made."""
    (tmp_path / "one").mkdir()
    (tmp_path / "much" / "deeper").mkdir(parents=True)
    finish(new_run(), tmp_path / "one", PYTHONHASHSEED="0")
    finish(new_run("--workers", "2"), tmp_path / "much" / "deeper", PYTHONHASHSEED="1")
    expected = outputs(tmp_path / "one")
    names = {"config.json", "journal.jsonl", "snapshot.json", "champion.json"}
    assert {f"runs/k/{name}" for name in names} <= set(expected)
    reported = {"report.md", "lineage.md", "champion.py", "champion.json", "figures/fitness.svg"}
    assert {"reports/README.md", *(f"reports/k/{name}" for name in reported)} <= set(expected)
    assert_same(tmp_path / "much" / "deeper", expected)
    # Pictures apart, it is the run that those below are compared with, strings hashed at random.
    plain = never_killed()
    same = [name for name in plain if not name.endswith((".md", ".py"))]
    assert len(same) >= 5
    assert {name: expected[name] for name in same} == {name: plain[name] for name in same}


@pytest.mark.parametrize("place", ["here", "spawned"])
def test_in_any_process_the_same_seed_gives_the_same_bytes(tmp_path, place):
    """In one that has searched before, and in one that starts from nothing."""
    if place == "here":
        (tmp_path / "before").mkdir()
        in_this_process(tmp_path / "before", *TINY, "--name", "other", "--no-figures")
        in_this_process(tmp_path, *new_run("--no-figures")[3:])
        shutil.rmtree(tmp_path / "before")
    else:
        arguments = (tmp_path, *new_run("--no-figures", "--workers", "2")[3:])
        process = multiprocessing.get_context("spawn").Process(target=in_this_process, args=arguments)
        process.start()
        process.join(PATIENCE)
        assert process.exitcode == 0
    assert_same(tmp_path, never_killed())


def test_another_seed_gives_other_bytes(tmp_path):
    """Else the tests here would show nothing."""
    finish(command("run", *SEARCH, "--seed", "4", "--name", "k", "--no-figures"), tmp_path)
    other, mine = outputs(tmp_path), never_killed()
    assert sorted(other) == sorted(mine)
    for name in (
        "runs/k/journal.jsonl",
        "runs/k/snapshot.json",
        "runs/k/champion.json",
        "reports/k/report.md",
    ):
        assert other[name] != mine[name]


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


def end(folder: Path) -> None:
    finish(begin_or_resume(folder), folder)
    assert_same(folder, never_killed())


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


def generation(folder: Path) -> int:
    try:
        return int(json.loads((folder / "runs" / "k" / "snapshot.json").read_text())["generation"])
    except (FileNotFoundError, ValueError):
        return 0


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
