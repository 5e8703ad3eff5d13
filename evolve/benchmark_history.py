"""What stands where a benchmark is to go: nothing may be replaced that it does not contain."""

from __future__ import annotations

from pathlib import Path

from evolve.errors import RunError

#: Files that only a run has in its directory, and only the report of a run in its folder.
_OF_A_RUN = ("config.json", "journal.jsonl", "snapshot.json")
_OF_ITS_REPORT = ("report.md", "champion.json")


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
