"""The run directory: a kill at any moment leaves the last committed generation, whole."""

from __future__ import annotations

import json
import os
import string
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from processes import Killed

from evolve.candidates import Candidate, Evaluation, Offspring, Scored, SplitScore
from evolve.errors import RunError
from evolve.rule_calls import Failure
from evolve.store import (
    RunStore,
    create_run,
    scored_from_json,
    scored_to_json,
    write_atomically,
)

NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
# Whatever a failure says, half of a surrogate pair included.
TEXTS = st.text(st.characters(), max_size=30).map(lambda said: Failure("raises", said).reason)
WORDS = st.text(string.ascii_letters + string.digits + "_", min_size=1, max_size=8)
SPLITS = st.none() | st.builds(SplitScore, *[NUMBERS] * 7)
CONTENTS = TEXTS | st.lists(st.tuples(TEXTS, TEXTS), max_size=3).map(tuple)
CANDIDATES = st.builds(
    Candidate,
    WORDS,
    st.dictionaries(WORDS, CONTENTS, max_size=3).map(lambda slots: tuple(slots.items())),
    st.dictionaries(WORDS, NUMBERS, max_size=3).map(lambda values: tuple(values.items())),
)
SCORED = st.builds(
    Scored,
    st.builds(Offspring, CANDIDATES, WORDS, st.lists(WORDS, max_size=2).map(tuple), TEXTS),
    st.builds(
        Evaluation, st.sampled_from(["ok", "failed"]), TEXTS, TEXTS, SPLITS, SPLITS, st.integers(0, 10**6)
    ),
    st.integers(0, 1000),
)


def scored(number: int) -> Scored:
    offspring = Offspring(Candidate("ladder", (), (("number", float(number)),)), "seed", (), f"é {number}")
    return Scored(offspring, Evaluation("failed", "why", "because"), number)


def records(*numbers: int) -> list[dict[str, object]]:
    return [scored_to_json(scored(number)) for number in numbers]


@pytest.fixture
def run(tmp_path: Path) -> RunStore:
    return create_run("one", {"seed": 0}, tmp_path)


HALF = Scored(
    Offspring(Candidate("a", (("slot", "\udc80"),)), "seed", (), "\ud800"),
    Evaluation("failed", "\udcff", "é"),
)


@given(st.text(st.sampled_from("a\ud800\udbff\udc00\udfff"), max_size=8))
def test_what_a_rule_says_survives_json(said):
    reason = Failure("raises", said).reason
    assert json.loads(json.dumps(reason)) == reason
    assert Failure("raises", reason).reason == reason


@settings(max_examples=60)
@given(st.lists(SCORED, max_size=4))
@example([HALF])
def test_what_is_committed_is_what_is_read(tmp_path_factory, listed):
    run = create_run("one", {}, tmp_path_factory.mktemp("runs"))
    run.commit([scored_to_json(each) for each in listed], 1, {"state": 1}, finished=False)
    assert RunStore(run.path).scored() == listed
    assert [each.candidate.id for each in run.scored()] == [each.candidate.id for each in listed]


@settings(max_examples=60)
@given(SCORED)
def test_a_record_is_the_candidate_and_names_its_id(each):
    record = json.loads(json.dumps(scored_to_json(each)))
    assert scored_from_json(record) == each
    assert record["id"] == each.candidate.id
    assert record["kind"] == "candidate"


def test_every_line_of_the_journal_is_a_record(run):
    run.commit(records(1, 2), 1, {}, finished=False)
    lines = (run.path / "journal.jsonl").read_bytes().splitlines()
    assert [json.loads(line) for line in lines] == records(1, 2)


def test_commits_add_up(run):
    assert run.snapshot() is None
    assert run.records() == run.scored() == []
    run.commit(records(1), 1, {"at": 1}, finished=False)
    first = (run.path / "journal.jsonl").read_bytes()
    run.commit([*records(2), {"kind": "generation", "best": 1.5}], 2, {"at": 2}, finished=True)
    assert (run.path / "journal.jsonl").read_bytes().startswith(first)
    assert run.scored() == [scored(1), scored(2)]
    assert run.records()[-1] == {"kind": "generation", "best": 1.5}
    snapshot = run.snapshot()
    assert (snapshot.generation, snapshot.strategy, snapshot.finished) == (2, {"at": 2}, True)
    assert snapshot.journal_bytes == (run.path / "journal.jsonl").stat().st_size


@pytest.mark.parametrize("torn", [b'{"kind": "cand', b'{"kind": "generation"}\n', b"\x00" * 5000, b"\n\n"])
def test_what_was_not_committed_is_dropped(run, torn):
    run.commit(records(1), 1, {}, finished=False)
    whole = (run.path / "journal.jsonl").read_bytes()
    with (run.path / "journal.jsonl").open("ab") as journal:
        journal.write(torn)
    assert run.scored() == [scored(1)]
    run.commit(records(2), 2, {}, finished=False)
    assert run.scored() == [scored(1), scored(2)]
    clean = create_run("two", {}, run.path.parent)
    clean.commit(records(1), 1, {}, finished=False)
    assert (clean.path / "journal.jsonl").read_bytes() == whole
    clean.commit(records(2), 2, {}, finished=False)
    for name in ("journal.jsonl", "snapshot.json"):
        assert (clean.path / name).read_bytes() == (run.path / name).read_bytes()


def test_a_journal_without_a_snapshot_was_never_committed(run):
    (run.path / "journal.jsonl").write_text('{"kind": "candidate"}\n')
    assert run.scored() == []
    run.commit(records(1), 1, {}, finished=False)
    assert run.scored() == [scored(1)]


@pytest.mark.parametrize("when", range(4))
def test_a_kill_within_a_commit_leaves_the_commit_before(run, monkeypatch, when):
    """The operations that order a commit on disk: two syncs, one rename."""
    run.commit(records(1), 1, {"at": 1}, finished=False)
    before = (run.path / "snapshot.json").read_bytes()
    done = 0

    def killing(operation):
        def wrapped(*arguments):
            nonlocal done
            if done == when:
                raise Killed
            done += 1
            return operation(*arguments)

        return wrapped

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", killing(os.fsync))
        patch.setattr(Path, "replace", killing(Path.replace))
        if when < 3:
            with pytest.raises(Killed):
                run.commit(records(2, 3), 2, {"at": 2}, finished=True)
        else:
            run.commit(records(2, 3), 2, {"at": 2}, finished=True)
    assert done == min(when, 3)
    again = RunStore(run.path)
    if when < 3:
        assert (run.path / "snapshot.json").read_bytes() == before
        assert again.scored() == [scored(1)]
        again.commit(records(2, 3), 2, {"at": 2}, finished=True)
    assert again.scored() == [scored(1), scored(2), scored(3)]
    # Nothing is left aside once a commit has gone through.
    assert sorted(each.name for each in run.path.iterdir()) == [
        "config.json",
        "journal.jsonl",
        "snapshot.json",
    ]


def test_the_journal_is_on_disk_before_the_snapshot_names_it(run, monkeypatch):
    order = []
    replace = Path.replace

    def fsync(descriptor: int) -> None:
        order.extend(
            each.name for each in run.path.iterdir() if each.stat().st_ino == os.fstat(descriptor).st_ino
        )

    def noted_replace(self: Path, target: Path) -> Path:
        order.append(f"→ {target.name}")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    run.commit(records(1), 1, {}, finished=False)
    assert order == ["journal.jsonl", ".snapshot.json.new", "→ snapshot.json"]


def test_a_file_is_the_old_or_the_new_one(tmp_path, monkeypatch):
    file = tmp_path / "file.json"
    write_atomically(file, "old")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(Killed()))
        with pytest.raises(Killed):
            write_atomically(file, "new")
    assert file.read_text() == "old"
    write_atomically(file, "newer")
    assert file.read_text() == "newer"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"{torn\n", "damaged line"),
        (b"\xff\xfe\n", "damaged line"),
        (b"[1]\n", "damaged line"),
        (b'{"no": "kind"}\n', "damaged line"),
        (b'{"kind": "candidate", "id": "x"}\n', "damaged line"),
        (b'{"kind": "candidate", "template": 3, "slots": [], "parameters": {}}\n', "damaged line"),
        (b"{}", "cut short"),
    ],
)
def test_a_damaged_committed_line_is_an_error_that_names_it(run, line, words):
    run.commit(records(1, 2), 1, {}, finished=False)
    journal = run.path / "journal.jsonl"
    first, second = journal.read_bytes().splitlines(keepends=True)
    if line.endswith(b"\n"):
        line = line[:-1].ljust(len(second) - 1) + b"\n"
    journal.write_bytes(first + line)
    with pytest.raises(RunError, match=words) as caught:
        run.scored()
    assert caught.value.file == str(journal)
    assert caught.value.place == (None if words == "cut short" else "line 2")
    assert "Restore the file" in str(caught.value)
    assert caught.value.exit_status == 2


@pytest.mark.parametrize("name", ["config.json", "snapshot.json"])
@pytest.mark.parametrize("text", ["", "{", "[]", "3", "\xff", '{"generation": 1}', '{"generation": []'])
def test_a_damaged_file_of_a_run_is_an_error_that_names_it(run, name, text):
    run.commit(records(1), 1, {}, finished=False)
    (run.path / name).write_bytes(text.encode("latin-1"))
    read = run.config if name == "config.json" else run.snapshot
    if name == "config.json" and text == '{"generation": 1}':
        assert read() == {"generation": 1}  # Its content is the configuration's own business.
        return
    with pytest.raises(RunError, match="cannot be read") as caught:
        read()
    assert caught.value.file == str(run.path / name)


def test_a_run_is_kept_to_one_process(run):
    with run.locked():
        with pytest.raises(RunError, match="another process works on this run"), RunStore(run.path).locked():
            raise AssertionError("locked twice")
        code = (
            "import sys\nfrom pathlib import Path\nfrom evolve.store import RunStore\n"
            "with RunStore(Path(sys.argv[1])).locked(): pass"
        )
        other = subprocess.run([sys.executable, "-c", code, run.path], capture_output=True, text=True)
        assert other.returncode == 1
        assert "another process works on this run" in other.stderr
    with run.locked():
        pass
    with pytest.raises(ValueError, match="mine"), run.locked():
        raise ValueError("mine")
    with run.locked():
        pass


def test_a_lock_that_cannot_be_made_is_an_error(tmp_path):
    with pytest.raises(RunError, match="cannot be locked"), RunStore(tmp_path / "gone").locked():
        raise AssertionError("locked")


def test_other_files_are_written_whole(run):
    run.write("champion.json", {"ä": [1.5, None]})
    assert (run.path / "champion.json").read_text(
        encoding="utf-8"
    ) == '{\n  "ä": [\n    1.5,\n    null\n  ]\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        run.write("champion.json", {"a": float("nan")})
    assert json.loads((run.path / "champion.json").read_text(encoding="utf-8")) == {"ä": [1.5, None]}
    run.write_manifest(workers=3)
    manifest = json.loads((run.path / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["workers"] == 3
    assert {"written", "folder", "python", "platform", "libraries"} < set(manifest)
    assert set(manifest["libraries"]) >= {"numpy", "scipy", "deap", "jinja2"}


def test_a_number_that_is_no_json_commits_nothing(run):
    run.commit(records(1), 1, {}, finished=False)
    with pytest.raises(ValueError, match="not JSON compliant"):
        run.commit([{"kind": "generation", "best": float("nan")}], 2, {}, finished=False)
    assert run.snapshot().generation == 1
    assert run.scored() == [scored(1)]
