"""The run directory: configuration, append-only journal and snapshot.

    runs/NAME/config.json      the resolved configuration, and hashes of what it refers to
    runs/NAME/journal.jsonl    one line a candidate and one a generation; never rewritten
    runs/NAME/snapshot.json    the search's state, and how much of the journal belongs to it
    runs/NAME/manifest.json    times, versions, workers: all that may differ between equal runs
    runs/NAME/champion.json    the champion, once the run has ended

A generation is committed by replacing the snapshot. Whatever stands in the journal beyond the
length that the snapshot names was cut off by a kill and is dropped.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from evolve.candidates import Candidate, Evaluation, Offspring, Scored, SplitScore
from evolve.errors import RunError

RUNS = Path("runs")
_RESTORE = "Restore the file, or make the run again: equal settings and seeds give an equal journal."
#: What the folders of benchmarks begin with; no run may, for the report of one would replace the other's.
BENCH_PREFIX = "bench-"


def write_atomically(path: Path, text: str) -> None:
    """Write a file so that a kill at any moment leaves either the old or the new one."""
    aside = path.with_name(f".{path.name}.new")
    # Half a surrogate pair, as in a file's name that is no UTF-8, becomes an escape, which JSON knows too.
    with aside.open("w", encoding="utf-8", errors="backslashreplace", newline="\n") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)


def to_json_text(value: Any) -> str:
    """Return JSON for people and machines: indented, in the order given, ending in a newline."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def scored_to_json(scored: Scored) -> dict[str, Any]:
    """Return the journal's record of a candidate."""
    evaluation = scored.evaluation
    return {
        "kind": "candidate",
        "generation": scored.generation,
        "id": scored.candidate.id,
        "operator": scored.offspring.operator,
        "parents": list(scored.offspring.parents),
        "change": scored.offspring.change,
        **scored.candidate.to_json(),
        "status": evaluation.status,
        "failure": evaluation.failure,
        "reason": evaluation.reason,
        "complexity": evaluation.complexity,
        "train": None if evaluation.train is None else dict(vars(evaluation.train)),
        "valid": None if evaluation.valid is None else dict(vars(evaluation.valid)),
    }


def scored_from_json(record: Mapping[str, Any]) -> Scored:
    """Return the candidate of a journal's record: the inverse of `scored_to_json`."""

    def split(name: str) -> SplitScore | None:
        return None if record[name] is None else SplitScore(**record[name])

    offspring = Offspring(
        Candidate.from_json(record), record["operator"], tuple(record["parents"]), record["change"]
    )
    evaluation = Evaluation(
        record["status"],
        record["failure"],
        record["reason"],
        split("train"),
        split("valid"),
        record["complexity"],
    )
    return Scored(offspring, evaluation, record["generation"])


@dataclass(frozen=True)
class Snapshot:
    """The state of a search after a generation.

    Attributes:
        generation: Generations completed.
        journal_bytes: Length of the journal that belongs to them.
        strategy: The strategy's state.
        finished: Whether the search has ended.
    """

    generation: int
    journal_bytes: int
    strategy: Mapping[str, Any]
    finished: bool


class RunStore:
    """One run's directory.

    Args:
        path: The directory, which must exist: see `create_run` and `open_run`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def name(self) -> str:
        """The run's name."""
        return self.path.name

    def config(self) -> dict[str, Any]:
        """Return the resolved configuration."""
        return self._read_json("config.json")

    def snapshot(self) -> Snapshot | None:
        """Return the last committed state, None before the first generation."""
        if not (self.path / "snapshot.json").exists():
            return None
        try:
            return Snapshot(**self._read_json("snapshot.json"))
        except TypeError as error:
            raise RunError(f"cannot be read: {error}", file=self.path / "snapshot.json") from error

    def records(self) -> list[dict[str, Any]]:
        """Return the journal's committed records.

        Raises:
            RunError: A committed line is damaged.
        """
        snapshot = self.snapshot()
        if snapshot is None:
            return []
        journal = self.path / "journal.jsonl"
        data = journal.read_bytes()[: snapshot.journal_bytes] if journal.exists() else b""
        if len(data) < snapshot.journal_bytes:
            raise RunError(
                "the journal is cut short",
                file=journal,
                expected=f"{snapshot.journal_bytes} bytes",
                found=len(data),
                cure=_RESTORE,
            )
        records = []
        for number, line in enumerate(data.splitlines(), 1):
            try:
                record = json.loads(line)
                record["kind"]
            except (ValueError, TypeError, KeyError) as error:
                raise self.damaged(number) from error
            records.append(record)
        return records

    def damaged(self, number: int) -> RunError:
        """Return the error of a line of the journal that cannot be read."""
        journal = self.path / "journal.jsonl"
        return RunError("damaged line", file=journal, place=f"line {number}", cure=_RESTORE)

    def scored(self) -> list[Scored]:
        """Return every committed candidate, in order.

        Raises:
            RunError: A committed line is damaged.
        """
        found = []
        for number, record in enumerate(self.records(), 1):
            if record["kind"] == "candidate":
                try:
                    found.append(scored_from_json(record))
                except (AttributeError, KeyError, TypeError, ValueError) as error:
                    raise self.damaged(number) from error
        return found

    def commit(
        self,
        records: Iterable[Mapping[str, Any]],
        generation: int,
        strategy: Mapping[str, Any],
        finished: bool,
    ) -> None:
        """Append records to the journal and make them, with the strategy's state, the committed state."""
        before = self.snapshot()
        length = 0 if before is None else before.journal_bytes
        lines = (json.dumps(each, ensure_ascii=False, allow_nan=False) + "\n" for each in records)
        with (self.path / "journal.jsonl").open("ab") as journal:
            journal.truncate(length)
            journal.seek(length)
            journal.write("".join(lines).encode(errors="backslashreplace"))
            journal.flush()
            os.fsync(journal.fileno())
            length = journal.tell()
        snapshot = Snapshot(generation, length, strategy, finished)
        write_atomically(self.path / "snapshot.json", json.dumps(vars(snapshot)) + "\n")

    def write(self, name: str, value: Any) -> None:
        """Write another JSON file of the run."""
        write_atomically(self.path / name, to_json_text(value))

    def write_manifest(self, **facts: Any) -> None:
        """Write what may differ between equal runs: when, where and with what it ran."""
        self.write(
            "manifest.json",
            {
                "written": datetime.now(tz=UTC).isoformat(timespec="seconds"),
                "folder": str(self.path.resolve()),
                "python": platform.python_version(),
                "platform": platform.platform(),
                "libraries": {name: metadata.version(name) for name in ("numpy", "scipy", "deap", "jinja2")},
                **facts,
            },
        )

    def _read_json(self, name: str) -> dict[str, Any]:
        file = self.path / name
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunError(f"cannot be read: {error}", file=file) from error
        if not isinstance(data, dict):
            raise RunError("cannot be read", file=file, expected="a JSON object", found=data)
        return data

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep the run to this process.

        Raises:
            RunError: Another process works on it, or it cannot be written.
        """
        try:
            file = (self.path / ".lock").open("w")
        except OSError as error:
            raise RunError(f"cannot be locked: {error.strerror or error}", file=self.path) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise RunError("another process works on this run", file=self.path) from None
            yield


def check_name(name: str) -> str:
    """Return a run's name if it may be one.

    Raises:
        RunError: It is empty, too long, could leave the folder of runs, or is that of the reports' index.
    """
    allowed = name.replace("-", "").replace("_", "").replace(".", "")
    good = allowed.isalnum() and name.isascii() and not name.startswith(".") and len(name) <= 100
    if not good or name.lower().endswith(".md"):
        raise RunError(
            "bad run name",
            field="name",
            expected="up to 100 letters, digits, '-', '_' and '.', and no '.md'",
            found=name,
        )
    return name


def free_name(runs: Path = RUNS) -> str:
    """Return the first unused name ``run-001``, ``run-002``, ….."""
    taken = {each.name for each in runs.iterdir()} if runs.is_dir() else set()
    number = 1
    while f"run-{number:03d}" in taken:
        number += 1
    return f"run-{number:03d}"


def create_run(name: str, config: Mapping[str, Any], runs: Path = RUNS) -> RunStore:
    """Make a run's directory with its configuration, all at once.

    Raises:
        RunError: There is a run of that name, a benchmark could have it, or the directory cannot be made.
    """
    path = runs / check_name(name)
    if name.lower().startswith(BENCH_PREFIX):  # folders may know no upper case
        raise RunError(
            "this name belongs to a benchmark",
            field="name",
            expected=f"a name that does not begin with '{BENCH_PREFIX}'",
            found=name,
            cure="Choose another --name.",
        )
    if path.exists():
        raise RunError(
            "this run exists",
            file=path,
            cure=f"Continue it with 'evolve resume {name}', or choose another --name.",
        )
    aside = runs / f".{name}.{os.getpid()}"
    try:
        _remove_leftovers(name, runs)
        aside.mkdir(parents=True)
        write_atomically(aside / "config.json", to_json_text(config))
        aside.rename(path)
    except OSError as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise RunError(f"cannot be made: {error.strerror or error}", file=path) from error
    return RunStore(path)


def _remove_leftovers(name: str, runs: Path) -> None:
    """Remove what processes left that were killed while they made this run."""
    for left in runs.glob(f".{name}.*"):
        number = left.suffix[1:]
        # In containers, process numbers come again: this process has left nothing so far.
        if number.isdecimal() and (int(number) == os.getpid() or not _is_alive(int(number))):
            shutil.rmtree(left, ignore_errors=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # another user's, or no process number
    return True


def create_free_run(config: Mapping[str, Any], runs: Path = RUNS) -> RunStore:
    """Make a run under the first unused name.

    Raises:
        RunError: The directory cannot be made.
    """
    while True:
        name = free_name(runs)
        try:
            return create_run(name, config, runs)
        except RunError:
            if not (runs / name).exists():
                raise
            # Another process, started at the same moment, has taken the name: the next one then.


def open_run(name: str, runs: Path = RUNS) -> RunStore:
    """Open a run by its name.

    Raises:
        RunError: There is no such run.
    """
    path = runs / check_name(name)
    if not (path / "config.json").is_file():
        known = list_runs(runs)
        raise RunError(
            "no such run",
            file=path,
            cure=f"There are {', '.join(known[-8:])}." if known else "'evolve run' makes the first one.",
        )
    return RunStore(path)


def list_runs(runs: Path = RUNS) -> list[str]:
    """Return the names of all runs, in alphabetical order."""
    return sorted(each.parent.name for each in runs.glob("[!.]*/config.json"))


def newest_run(runs: Path = RUNS) -> str:
    """Return the name of the run that was started last.

    Raises:
        RunError: There is none.
    """
    configs = sorted(
        runs.glob("[!.]*/config.json"), key=lambda each: (each.stat().st_mtime, each.parent.name)
    )
    if not configs:
        raise RunError("there are no runs", file=runs, cure="'evolve run' makes the first one.")
    return configs[-1].parent.name
