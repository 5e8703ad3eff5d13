"""What stands where a benchmark is to go: it goes on with its own, and replaces nothing else.

The same benchmark goes on where it was left. With more seeds or further settings it is extended, so that its
new report holds all that the old one did.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from evolve.benchmark_cells import Cell
from evolve.configuration import RunConfig
from evolve.datasets import Dataset
from evolve.errors import InputError, RunError
from evolve.store import RunStore

#: Files that only a run has in its directory, and only the report of a run in its folder.
_OF_A_RUN = ("config.json", "journal.jsonl", "snapshot.json")
_OF_ITS_REPORT = ("report.md", "champion.json")
#: What the configuration of a setting does not say: the benchmark decides it, or a hash tells more.
_NO_SETTING = ("seed", "generations", "evaluations", "datasets")


def check_no_run(folder: Path, report: Path | None) -> None:
    """Raise `RunError` if a run, or its report, is where those of a benchmark are to go.

    Args:
        folder: The folder of the benchmark's runs.
        report: The folder of its report; None if none is to be written.
    """
    found = [folder / name for name in _OF_A_RUN]
    found += [] if report is None else [report / name for name in _OF_ITS_REPORT]
    for file in found:
        if file.is_file():
            what = "a run" if file.parent == folder else "the report of a run"
            raise RunError(f"{what} is here", file=file.parent, cure="Choose another --name.")


def check_continues(cells: Sequence[Cell], dataset: Dataset, folder: Path, report: Path | None) -> None:
    """Raise `RunError` unless a benchmark is the one that was begun in its place, or more of it.

    Args:
        cells: All its runs.
        dataset: Its models.
        folder: The folder of its runs.
        report: The folder of its report; None if none is to be written.
    """
    place = _Place(cells, folder, report)
    for cell in cells:
        place.check_cell(cell)
    place.check_covers(folder, place.begun)
    file = None if report is None else report / "bench.json"
    if file is not None and file.is_file():
        try:
            place.check_report(file, json.loads(file.read_text(encoding="utf-8")), dataset)
        except RunError:
            raise
        except (OSError, ValueError, LookupError, TypeError, AttributeError, InputError) as error:
            raise RunError(f"cannot be read: {error}", file=file, cure=place.cure(report)) from None


class _Place:
    """What was begun where a benchmark is to go."""

    def __init__(self, cells: Sequence[Cell], folder: Path, report: Path | None) -> None:
        self._folder = folder
        self._report = report
        self._configs = {cell.setting: cell.config for cell in cells}
        self._evaluations = cells[0].config.evaluations
        self._seeds = 1 + max(cell.config.seed for cell in cells)
        #: Each setting that has runs, with its number of seeds.
        self.begun: dict[str, int] = {}
        for file in sorted(folder.glob("[!.]*/seed-*/config.json")):
            number = file.parent.name.removeprefix("seed-")
            if number.isdecimal():
                name = file.parent.parent.name
                self.begun[name] = max(self.begun.get(name, 0), int(number) + 1)

    def cure(self, *places: Path | None) -> str:
        """Return what to do, removing these folders being the other way out."""
        there = [str(each) for each in places if each is not None and each.exists()]
        return f"Choose another --name, or remove {' and '.join(there)}."

    def differs(
        self, file: Path, field: str, expected: object, found: object, cure: str | None = None
    ) -> RunError:
        """Return the error of another benchmark that is there."""
        return RunError(
            "this benchmark was started with something else",
            file=file,
            field=field,
            expected=str(expected),
            found=found,
            cure=cure or self.cure(self._folder, self._report),
        )

    def check_cell(self, cell: Cell) -> None:
        """Refuse a run that was made under another configuration."""
        file = cell.path / "config.json"
        if not file.is_file():
            return
        stored = RunStore(cell.path).config()
        # What follows from the number of evaluations comes after it.
        for name in dict.fromkeys(("evaluations", *cell.resolved, *stored)):
            if stored.get(name) != cell.resolved.get(name):
                expected = repr(cell.resolved.get(name))
                raise self.differs(file, name, expected, stored.get(name), self._cure_of(cell, stored, name))

    def _cure_of(self, cell: Cell, stored: dict[str, Any], name: str) -> str | None:
        """Return how to go on once a plugin has been repaired: the other settings do not depend on it."""
        now, then = cell.resolved.get(name), stored.get(name)
        if name != "hashes" or not (isinstance(now, dict) and isinstance(then, dict)):
            return None
        if any(now.get(each) != then.get(each) for each in {*now, *then} - {"plugins"}):
            return None
        return f"Restore the plugin, choose another --name, or remove {cell.folder} to make its runs again."

    def check_covers(self, where: Path, seeds: dict[str, int]) -> None:
        """Refuse settings or seeds that the benchmark does not have any more."""
        missing = [name for name in seeds if name not in self._configs]
        if missing:
            # Where some of it is still wanted, only the rest stands in the way.
            gone = [self._folder / name for name in missing]
            folders = [self._folder] if len(missing) == len(seeds) else gone
            expected = f"only some of {', '.join(self._configs)}"
            raise self.differs(where, "settings", expected, [*seeds], self.cure(*folders, self._report))
        most = max(seeds.values(), default=0)
        if most > self._seeds:
            cure = f"Ask for --seeds {most}. {self.cure(self._folder, self._report)}"
            raise self.differs(where, "seeds", f"at most {self._seeds}", most, cure)

    def check_report(self, file: Path, record: dict[str, Any], dataset: Dataset) -> None:
        """Refuse a report of which the new one would not hold everything."""
        if record["evaluations"] != self._evaluations:
            raise self.differs(file, "evaluations", self._evaluations, record["evaluations"])
        if record["dataset_hash"] != dataset.content_hash:
            raise self.differs(
                file, "dataset", f"the models of {dataset.name} as they are", record["dataset"]
            )
        names = [each["name"] for each in record["settings"]]
        self.check_covers(file, dict.fromkeys(names, record["seeds"]))
        first = next(iter(self._configs))
        if names[0] != first:
            words = f"{first}, with which the others are compared"
            raise self.differs(file, "first setting", words, names[0])
        for name in names:
            before = RunConfig.from_json(record["configurations"][name])
            self._check_config(file, name, before.to_json(), self._configs[name].to_json())

    def _check_config(self, file: Path, name: str, before: dict[str, Any], now: dict[str, Any]) -> None:
        keys: Iterable[str] = dict.fromkeys((*now, *before))
        for key in keys:
            if key not in _NO_SETTING and before.get(key) != now.get(key):
                raise self.differs(file, f"{name}, {key}", repr(now.get(key)), before.get(key))
