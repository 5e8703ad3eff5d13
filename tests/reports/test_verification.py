from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evolve.reports.verification import verify

REPORT_FILES = ("report.md", "lineage.md", "champion.json", "champion.py")


def check(run) -> tuple[str, ...]:
    return verify(run.store, run.setup, run.reports)


def change_digit(path: Path, generator: random.Random) -> int:
    """Change one digit of a file to another one; return its line."""
    text = path.read_text(encoding="utf-8")
    places = [place for place, letter in enumerate(text) if letter in "0123456789"]
    place = generator.choice(places)
    other = generator.choice([digit for digit in "0123456789" if digit != text[place]])
    path.write_text(text[:place] + other + text[place + 1 :], encoding="utf-8")
    return text[:place].count("\n") + 1


def change_record(
    run, choose: Callable[[dict[str, Any]], bool], change: Callable[[dict[str, Any]], None]
) -> int:
    """Change the first record of the journal that is chosen; return its line."""
    journal = run.store.path / "journal.jsonl"
    records = [json.loads(line) for line in journal.read_text(encoding="utf-8").splitlines()]
    line = next(number for number, record in enumerate(records, 1) if choose(record))
    change(records[line - 1])
    data = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()
    journal.write_bytes(data)
    snapshot = run.store.path / "snapshot.json"
    state = json.loads(snapshot.read_text())
    snapshot.write_text(json.dumps(state | {"journal_bytes": len(data)}) + "\n")
    return line


@pytest.mark.parametrize("name", ["run", "single", "suite", "hopeless"])
def test_an_untouched_run_holds(name, request):
    assert check(request.getfixturevalue(name)) == ()


@pytest.mark.parametrize("name", REPORT_FILES)
@pytest.mark.parametrize("seed", range(4))
def test_a_changed_digit_of_the_report_is_found(copy, name, seed):
    line = change_digit(copy.folder / name, random.Random(f"{name}{seed}"))
    found = check(copy)
    assert any(f"{copy.folder / name}, line {line}: reported " in each for each in found)
    assert all("recomputed" in each for each in found)


def test_any_number_of_workers_finds_the_same_and_tells_how_far_it_is(copy):
    def found(workers: int) -> tuple[tuple[str, ...], list[int]]:
        told: list[int] = []
        differences = verify(
            copy.store,
            copy.setup,
            copy.reports,
            workers=workers,
            observe=lambda each: told.append(each.generation),
        )
        return differences, told

    assert found(2) == ((), [0, 1, 2])
    change_record(copy, first_candidate, lambda record: record["train"].update(fitness=0.5))
    assert found(2) == found(1)
    assert len(found(2)[0]) > 0


@pytest.mark.parametrize("seed", range(8))
def test_a_changed_digit_of_the_journal_is_found(copy, seed):
    change_digit(copy.store.path / "journal.jsonl", random.Random(seed))
    assert any("journal.jsonl" in each for each in check(copy))


@pytest.mark.parametrize("name", ["snapshot.json", "champion.json", "config.json"])
def test_a_changed_digit_of_the_runs_other_files_is_found(copy, name):
    path = copy.store.path / name
    text = path.read_text()
    for old, new in (('"generations": 3', '"generations": 4'), ('"generation": 3', '"generation": 2')):
        text = text.replace(old, new)
    path.write_text(text if name != "champion.json" else text.replace("0.", "1.", 1))
    assert any(name in each for each in check(copy))


def candidate_with_parents(record: dict[str, Any]) -> bool:
    return record["kind"] == "candidate" and bool(record["parents"])


def first_candidate(record: dict[str, Any]) -> bool:
    return record["kind"] == "candidate"


def summary(record: dict[str, Any]) -> bool:
    return record["kind"] == "generation"


@pytest.mark.parametrize(
    ("choose", "change", "field"),
    [
        (first_candidate, lambda record: record["train"].update(fitness=0.5), "train.fitness"),
        (first_candidate, lambda record: record["valid"].update(avg_bits=1.0), "valid.avg_bits"),
        (first_candidate, lambda record: record.update(complexity=1), "complexity"),
        (first_candidate, lambda record: record.update(id="0" * 12), "id"),
        (first_candidate, lambda record: record.update(generation=2), "generation"),
        (first_candidate, lambda record: record.update(status="failed"), "status"),
        (first_candidate, lambda record: record.update(extra=1), "extra"),
        (candidate_with_parents, lambda record: record.update(parents=["0" * 12]), "parents"),
        (candidate_with_parents, lambda record: record.update(operator="guess"), "operator"),
        (candidate_with_parents, lambda record: record.update(change="all"), "change"),
        (summary, lambda record: record.update(best=9.0), "best"),
        (summary, lambda record: record.update(median=9.0), "median"),
        (summary, lambda record: record.update(champion="0" * 12), "champion"),
        (summary, lambda record: record.update(duplicates=9), "duplicates"),
    ],
)
def test_a_changed_record_is_named_with_line_and_field(copy, choose, change, field):
    line = change_record(copy, choose, change)
    assert any(f"journal.jsonl, line {line}, {field}: " in each for each in check(copy))


def test_the_last_digit_of_a_score_counts(copy):
    def nudge(record: dict[str, Any]) -> None:
        record["train"]["fitness"] *= 1 + 1e-15

    line = change_record(
        copy, lambda record: record["kind"] == "candidate" and record["train"]["fitness"] > 1, nudge
    )
    assert any(f"line {line}, train.fitness: " in each and "within rounding" in each for each in check(copy))


def test_a_candidate_of_the_journal_that_was_never_asked_for_is_found(copy):
    def move(record: dict[str, Any]) -> None:
        name = next(iter(record["parameters"]))
        record["parameters"][name] *= 1.01

    line = change_record(
        copy, lambda record: record["kind"] == "candidate" and bool(record["parameters"]), move
    )
    found = check(copy)
    assert any(f"journal.jsonl, line {line}, id: " in each for each in found)
    assert any("asks for other candidates" in each for each in found)


def test_a_damaged_candidate_is_named_and_stops_the_comparison(copy):
    line = change_record(copy, first_candidate, lambda record: record.update(template="nowhere"))
    found = check(copy)
    assert any(f"journal.jsonl, line {line}: no candidate: KeyError" in each for each in found)
    assert "the journal is damaged" in found[-1]


def test_a_record_of_another_kind_is_named(copy):
    line = change_record(copy, first_candidate, lambda record: record.update(kind="else"))
    assert any(f"journal.jsonl, line {line}, kind: reported 'else'" in each for each in check(copy))


def test_a_cut_journal_is_named(copy):
    journal = copy.store.path / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[:-10])
    (found,) = check(copy)
    assert "cut short" in found


def test_a_missing_file_is_named(copy):
    (copy.folder / "lineage.md").unlink()
    (found,) = check(copy)
    assert found.startswith(f"{copy.folder / 'lineage.md'}: cannot be read: No such file")


def test_lines_added_and_dropped_are_told_once(copy):
    path = copy.folder / "report.md"
    lines = path.read_text().split("\n")
    path.write_text("\n".join([*lines[:10], "more", *lines[10:]]))
    (found,) = check(copy)
    assert found == f"{path}, line 11: reported 'more', recomputed nothing"
    path.write_text("\n".join([*lines[:10], *lines[11:]]))
    (found,) = check(copy)
    assert f"recomputed {lines[10][:10]!r}"[:-1] in found


def test_of_many_differences_some_are_told(copy):
    path = copy.folder / "report.md"
    path.write_text(path.read_text().replace("0", "1"))
    found = check(copy)
    assert 20 < len(found) < 30
    assert any("more lines differ" in each for each in found)


def test_the_line_of_the_index_counts_too(copy):
    index = copy.reports / "README.md"
    text = index.read_text()
    index.write_text(text.replace("| reference |", "| other |"))
    (found,) = check(copy)
    assert f"{index}, line 7: reported '" in found
    index.write_text("nothing")
    (found,) = check(copy)
    assert "no line tells of this run" in found
    index.unlink()
    (found,) = check(copy)
    assert "cannot be read" in found


def test_other_data_give_other_numbers(copy, single):
    assert len(verify(copy.store, single.setup, copy.reports)) > 20
