"""Recomputes every number of a run's journal and of its report, and says which differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from difflib import SequenceMatcher
from pathlib import Path

from evolve.engine import GenerationSummary, Outcome
from evolve.errors import RunError
from evolve.reports.contents import collect
from evolve.reports.index import INDEX, index_row
from evolve.reports.replay import config_differences, replay
from evolve.reports.report import report_texts
from evolve.reports.writer import REPORTS
from evolve.setup import Setup
from evolve.store import RunStore, scored_to_json, to_json_text
from evolve.verdicts.control import permuted_setup, planned_control

#: Told of a generation that was made again.
Observe = Callable[[GenerationSummary], None]

#: Differences told of one file; the rest are counted.
_MOST_TOLD = 20


def verify(
    store: RunStore,
    setup: Setup,
    reports: Path = REPORTS,
    workers: int = 1,
    observe: Observe = lambda _: None,
) -> tuple[str, ...]:
    """Recompute every number of a run's journal and report from its content.

    Every candidate is rendered and evaluated again, the search is asked again for the offspring it
    made, and the texts of the report are written anew, in memory, from what that gives; a full control
    search kept with the run is made again as well. Pictures are not compared, for they depend on the
    version of matplotlib.

    Args:
        store: The run.
        setup: What was searched, unchanged since the run.
        reports: The folder of all reports.
        workers: Processes that evaluate.
        observe: Called after each generation that was made again, those of a control search too.

    Returns:
        The differences, each with its file, its line or record, what is there and what was recomputed;
        none if all is well.
    """
    try:
        differences = list(config_differences(store, setup))
        outcome, found = _made_again(store, setup, workers, observe)
        found = differences + found
        kept = planned_control(store)
        control = outcome
        if kept is not None and outcome is not None:
            control, more = _made_again(kept, permuted_setup(setup), workers, observe)
            found += more
    except RunError as error:
        return (str(error),)
    if outcome is None or control is None:
        return (*found, f"{reports / store.name}: not compared, for the journal is damaged")
    contents = collect(store, setup, outcome)
    folder = reports / store.name
    figures = (folder / "figures").is_dir()
    for name, text in report_texts(contents, figures).items():
        found += _compare_file(folder / name, text)
    found += _compare_index(folder, reports / INDEX)
    return tuple(found)


def _made_again(
    store: RunStore, setup: Setup, workers: int, observe: Observe
) -> tuple[Outcome | None, list[str]]:
    """Make a search again; returns its outcome, None if it cannot be told, and what differs in its folder."""
    outcome, found = replay(store, setup, workers, observe)
    if outcome is not None and outcome.finished and outcome.champion is not None:
        found += _compare_file(store.path / "champion.json", to_json_text(scored_to_json(outcome.champion)))
    return outcome, found


def _compare_file(path: Path, text: str) -> list[str]:
    try:
        there = path.read_bytes().decode("utf-8", errors="replace")
    except OSError as error:
        return [f"{path}: cannot be read: {error.strerror}; write it with 'evolve report'"]
    found = list(_different_lines(there.split("\n"), text.split("\n")))
    told = [f"{path}, line {line}: reported {old}, recomputed {new}" for line, old, new in found[:_MOST_TOLD]]
    if len(found) > _MOST_TOLD:
        told.append(f"{path}: {len(found) - _MOST_TOLD} more lines differ")
    return told


def _different_lines(reported: list[str], recomputed: list[str]) -> Iterator[tuple[int, str, str]]:
    """Yield (line as reported, what it is, what it should be); a line that one side lacks is ``nothing``."""
    if reported == recomputed:
        return
    matcher = SequenceMatcher(None, reported, recomputed, autojunk=False)
    for tag, start, end, other_start, other_end in matcher.get_opcodes():
        if tag == "equal":
            continue
        for place in range(max(end - start, other_end - other_start)):
            old = reported[start + place] if start + place < end else None
            new = recomputed[other_start + place] if other_start + place < other_end else None
            yield min(start + place, max(end - 1, start)) + 1, _shown(old, new), _shown(new, old)


def _shown(line: str | None, other: str | None) -> str:
    """Quote a line, a long one around the place where it differs from the other."""
    if line is None:
        return "nothing"
    if len(line) <= 120 or other is None:
        return repr(line if len(line) <= 120 else line[:117] + "…")
    same = next((place for place, pair in enumerate(zip(line, other, strict=False)) if pair[0] != pair[1]), 0)
    start = max(0, same - 50)
    return repr(("…" if start else "") + line[start : start + 110] + ("…" if start + 110 < len(line) else ""))


def _compare_index(folder: Path, index: Path) -> list[str]:
    """Compare the line of the index that tells of this run; those of other runs are their own business."""
    expected = index_row(folder).rstrip("\n")
    start = expected.split("](")[0] + "]("
    try:
        lines = index.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError as error:
        return [f"{index}: cannot be read: {error.strerror}; write it with 'evolve report'"]
    if not expected or expected in lines:
        return []
    for place, line in enumerate(lines, 1):
        if line.startswith(start):
            shown = _shown(line, expected), _shown(expected, line)
            return [f"{index}, line {place}: reported {shown[0]}, recomputed {shown[1]}"]
    return [f"{index}: no line tells of this run, recomputed {_shown(expected, None)}"]
