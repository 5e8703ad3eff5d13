from __future__ import annotations

import csv
import json
import re
from dataclasses import replace

import pytest
from markdown_it import MarkdownIt
from small_runs import ROOT, Run, make_run

from evolve.candidates import Candidate
from evolve.errors import PluginError
from evolve.reports import report as report_module
from evolve.reports.contents import collect
from evolve.reports.markdown import code, code_cell, fenced, number, percent, prose, signed
from evolve.reports.readable import shown_rule
from evolve.reports.report import report_texts
from evolve.reports.reproduction import run_command
from evolve.reports.tables import COMPARED_ROLES

EVERY_RUN = ("run", "single", "suite", "hopeless")
HEADINGS = [
    "How it compares",
    "Generations",
    "What each operator earned",
    "The rule",
    "The front",
    "Precision map",
    "Fitness and compression",
    "Verdicts",
    "Failures",
    "How to reproduce it",
]


def tables(text: str) -> list[list[list[str]]]:
    """Parse markdown as a code host does and return the cells of its tables."""
    found: list[list[list[str]]] = []
    tokens = MarkdownIt("commonmark").enable("table").parse(text)
    for place, token in enumerate(tokens):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type in ("th_open", "td_open"):
            found[-1][-1].append(tokens[place + 1].content)
    return found


@pytest.fixture(params=EVERY_RUN)
def any_run(request: pytest.FixtureRequest) -> Run:
    found: Run = request.getfixturevalue(request.param)
    return found


def test_sections_in_order(any_run):
    assert re.findall(r"^## (.*)$", any_run.text(), re.MULTILINE) == HEADINGS


def test_headings_stand_apart(any_run):
    lines = any_run.text().split("\n")
    places = [place for place, line in enumerate(lines) if line.startswith("##")]
    assert len(places) >= len(HEADINGS)
    assert not any(lines[place - 1] or lines[place + 1] for place in places)


def test_first_paragraph_is_one_sentence_with_the_numbers(run):
    title, _, sentence, *_ = run.text().split("\n")
    champion = run.contents.tables[0].champion
    assert title == "# A rule for the data set reference"
    assert percent(champion.optimum_ratio) in sentence
    assert "on test, which selected nothing" in sentence
    assert sentence.count(". ") == 0
    assert sentence.endswith(".")


def test_table_has_every_rule_and_column_on_every_split(run):
    header, *rows = tables(run.text())[0]
    assert header == [
        "rule",
        "role",
        "compression",
        "retention",
        "average bits",
        "fitness",
        "optimum",
        "share of the optimum",
    ]
    catalogue = run.setup.catalogue.heuristics
    expected = {f"`{name}`" for name, each in catalogue.items() if each.role in COMPARED_ROLES}
    for split in (0, 1, 2):
        _, *rows = tables(run.text())[split]
        assert {row[0] for row in rows} == {"**champion**", *expected}
        assert [row[1] for row in rows] == sorted(
            (row[1] for row in rows), key=["champion", "published", "baseline"].index
        )
        assert len({row[6] for row in rows}) == 1


def test_numbers_are_those_of_the_published_rules(run):
    expected = json.loads((ROOT / "tests" / "data" / "expected.json").read_text())
    text = json.dumps(expected)
    for table in run.contents.tables:
        row = next(row for row in table.rows if row.name == "wider_fp16_zone")
        assert f"{row.fitness:.6f}"[:-1] in text


def test_champion_scores_agree_with_the_journal(run):
    champion = run.outcome.champion.evaluation
    train, valid, test = run.contents.tables
    for table, recorded in ((train, champion.train), (valid, champion.valid)):
        assert table.champion.fitness == pytest.approx(recorded.fitness, rel=1e-12)
        assert table.champion.optimum_ratio == pytest.approx(recorded.optimum_ratio, rel=1e-12)
        assert table.champion.avg_bits == pytest.approx(recorded.avg_bits, rel=1e-12)
    assert test.champion.fitness is not None


def test_every_table_row_has_the_cells_of_its_header(any_run):
    for name in ("report.md", "lineage.md"):
        for table in tables(any_run.text(name)):
            assert len(table) > 1
            assert {len(row) for row in table} == {len(table[0])}
        # A broken row would not be parsed as one.
        lines = [line for line in any_run.text(name).split("\n") if line.startswith("|")]
        assert len(lines) == sum(len(table) + 1 for table in tables(any_run.text(name)))


def test_texts_hold_neither_name_nor_path(any_run):
    for path in any_run.folder.rglob("*.*"):
        text = path.read_text(encoding="utf-8")
        for secret in (str(any_run.reports.parent), str(ROOT), any_run.store.name):
            assert secret not in text


def test_champion_json_reads_back_as_the_candidate(run):
    record = json.loads(run.text("champion.json"))
    candidate = Candidate.from_json(record)
    assert candidate == run.outcome.champion.candidate
    assert record["id"] == candidate.id
    assert record["source"] in run.text() or "# p." in run.text()
    assert set(record["scores"]) == {"train", "valid", "test"}
    assert record["lineage"][-1]["id"] == candidate.id
    assert record["found"] in run.text()


def test_champion_file_allocates_as_the_rule_does(run):
    namespace: dict[str, object] = {"__name__": "champion"}
    exec(compile(run.text("champion.py"), "champion.py", "exec"), namespace)
    for split, drawn in zip(("train", "valid", "test"), run.contents.maps, strict=True):
        profile = json.loads((ROOT / "datasets" / "reference" / f"{split}.json").read_text())
        found = namespace["allocate"](profile)
        assert list(found) == [drawn.formats[index] for index in drawn.champion]


def test_rule_is_shown_as_code_with_its_values(run):
    champion = run.contents.champion
    text = run.text()
    shown = shown_rule(champion.candidate, champion.template)
    for name, value in shown.parameters:
        assert f"# p.{name} = {value!r}" in text
    assert shown.source.rstrip() in text
    assert (shown.source != champion.source) == ("as a reader would want it" in text)


def test_generations_tell_of_every_new_champion(run):
    header, *rows = tables(run.text())[3]
    assert header[-2:] == ["gain on train", "gain on valid"]
    assert [row[0] for row in rows] == ["0", "1", "2"]
    champions = [summary.champion for summary in run.outcome.generations]
    for place, row in enumerate(rows):
        fresh = place == 0 or champions[place] != champions[place - 1]
        assert row[4] == (f"`{champions[place]}`" if fresh else "–")
    assert sum(int(row[3]) for row in rows) == len(run.outcome.scored)


def test_a_long_run_shows_the_generations_that_brought_something(run):
    found = run.outcome.generations
    best = [1.0, 2.0, *[2.0] * 40, 2.5, *[2.5] * 20]
    many = [
        replace(found[0], generation=place, best=value, champion=None) for place, value in enumerate(best)
    ]
    many[17] = replace(many[17], champion=run.outcome.champion.candidate.id)
    many[18:] = [replace(each, champion=many[17].champion) for each in many[18:]]
    texts = report_texts(collect(run.store, run.setup, replace(run.outcome, generations=tuple(many))), True)
    rows = tables(texts["report.md"])[3][1:]
    assert [int(row[0]) for row in rows] == [0, 1, 10, 17, 20, 30, 40, 42, 50, 60, 62]
    assert "and every 10th" in texts["report.md"]
    assert "stretched towards the optimum" in texts["report.md"]
    everything = list(csv.DictReader(texts["generations.csv"].splitlines()))
    assert [float(row["best"]) for row in everything] == best
    assert everything[17]["champion"] == many[17].champion
    assert "Shown are the generations" not in run.text()
    listed = list(csv.DictReader(run.text("generations.csv").splitlines()))
    assert sum(int(row["evaluations"]) for row in listed) == len(run.outcome.scored)


def test_one_file_says_that_nothing_unseen_was_tested(single):
    text = single.text()
    assert "**Nothing unseen was tested.**" in text
    assert "on the one model it was searched on" in text
    assert "gain on valid" not in text
    assert [table.split for table in single.contents.tables] == ["train"]


def test_without_test_split_nothing_unseen_was_tested(suite):
    assert "**Nothing unseen was tested.** This data set has no test split" in suite.text()
    assert "### Test" not in suite.text()


def test_several_models_are_means_with_the_worst(suite):
    header, champion, *_ = tables(suite.text())[0]
    assert header[-1] == "worst share"
    row = suite.contents.tables[0].champion
    assert champion[-1] == percent(row.worst_ratio)
    assert row.worst_ratio < row.optimum_ratio
    assert row.optimum_ratio == pytest.approx(suite.outcome.champion.evaluation.train.optimum_ratio)
    assert "2 more models not drawn" in suite.text()


def test_failures_are_counted_by_kind(suite):
    failed = [each for each in suite.outcome.scored if each.evaluation.status == "failed"]
    rows = suite.contents.failures
    assert failed
    assert sum(row.count for row in rows) == len(failed)
    assert "this run allows metadata" in suite.text()


def test_no_candidate_works(hopeless):
    text = hopeless.text()
    assert "no candidate worked, so there is no rule" in text
    assert "There is none" in text
    assert r"KeyError: 'no \| such \`layer\`'" in text
    assert not (hopeless.folder / "champion.py").exists()
    assert json.loads(hopeless.text("champion.json"))["id"] is None


def test_without_figures_none_is_linked(run, suite):
    assert "(figures/" in run.text()
    assert "(figures/" not in suite.text()
    for link in re.findall(r"\]\((?!#)([^)]*)\)", run.text()):
        assert (run.folder / link).is_file()


def test_command_names_only_what_is_not_the_default(run, suite):
    assert run_command(run.setup.config) == (
        "python -m evolve run --generations 3 --seed 1 --datasets reference --population 8"
    )
    assert "--datasets small --population 20 --signals metadata --plateau 2" in suite.text()
    assert "Give `--datasets` the path" in suite.text()
    config = type(run.setup.config)(operators={"structure": 2.5, "crossover": 1}, start_from=("a", "b"))
    assert run_command(config) == (
        "python -m evolve run --generations 6 --seed 0 --operators structure=2.5,crossover=1 --start-from a,b"
    )
    fitted = type(run.setup.config)(fit=True, copies=2)
    assert run_command(fitted) == "python -m evolve run --generations 6 --seed 0 --copies 2 --fit"
    for fit, flag in ((None, ""), (True, ""), (False, " --no-fit")):
        config = type(run.setup.config)(signals="gradient", fit=fit)
        expected = f"python -m evolve run --generations 6 --seed 0 --signals gradient{flag}"
        assert run_command(config) == expected


def test_versions_are_those_of_the_manifest(copy):
    copy.store.write("manifest.json", {"python": "3.99.0", "libraries": {"numpy": "9.9"}})
    assert "Python 3.99.0, numpy 9.9, scipy" in report_texts(copy.contents, True)["report.md"]


def test_a_rule_that_cannot_stand_alone_is_still_reported(run, monkeypatch):
    def refuse(*_: object, **__: object) -> str:
        raise PluginError("the rule cannot stand alone", file="/secret/place.py", field="model.x")

    monkeypatch.setattr(report_module, "standalone_source", refuse)
    texts = report_texts(run.contents, True)
    assert "champion.py" not in texts
    assert "model.x: the rule cannot stand alone" in texts["report.md"]
    assert "secret" not in texts["report.md"]


def test_numbers_that_the_shown_rule_does_not_have_carry_nothing(run):
    within = 'np.where(model.is_type("Conv"), p.weight, p.weight_2)'
    slots = (
        ("weight", "model.param_fraction"),
        ("loss", "model.loss"),
        ("price", f'np.where(model.is_type("Conv"), {within}, p.weight_3)'),
    )
    numbers = {"first_price": 0.241, "second_price": 30.0, "weight": 2.0, "weight_2": 3.0, "weight_3": 4.0}
    rule = Candidate("two_pass", slots, tuple(numbers.items()))
    offspring = replace(run.outcome.champion.offspring, candidate=rule, operator="seed", parents=())
    champion = replace(run.outcome.champion, offspring=offspring)
    found = collect(run.store, run.setup, replace(run.outcome, champion=champion))
    shown = [name for name, _ in shown_rule(rule, found.champion.template).parameters]
    assert shown == ["second_price", "weight", "weight_3"]
    parts = [each.part.split()[0] for each in found.verdicts.carriers.parts if " = " in each.part]
    assert parts == [f"p.{name}" for name in shown]


def test_a_rule_known_by_another_name_is_named(tmp_path):
    heuristics = tmp_path / "heuristics"
    heuristics.mkdir()
    body = (ROOT / "heuristics" / "layernorm_fp32_else_fp16.py.j2").read_text()
    (heuristics / "mine.py.j2").write_text(body.replace('"published"', '"user"'))
    (heuristics / "known.py.j2").write_text(body)
    run = make_run(
        tmp_path,
        heuristics=heuristics,
        start_from="mine",
        population=2,
        generations=1,
        operators={"newcomer": 1},
    )
    champion = run.contents.champion
    assert champion.seed == "mine"
    assert champion.same_as == ""
    assert "nothing better than the seed heuristic `mine`" in run.text()


def test_a_newcomer_is_told_as_drawn_at_random_and_has_no_gain(tmp_path):
    run = make_run(tmp_path, strategy="random", start_from="uniform_int8")
    assert run.outcome.champion.offspring.operator == "newcomer"
    told = run.text().split("### What carried it?")[1].split("###")[0]
    assert "The rule was drawn at random" in told
    assert "A newcomer is drawn at random and has no parent" in told
    header, row = tables(told)[0]
    assert row[1].startswith("newcomer: a random ")
    assert (row[0], row[2:], len(row)) == ("2", ["–"] * 6, len(header))


def test_a_stopped_run_says_so(run):
    stopped = replace(run.outcome, generations=run.outcome.generations[:2], finished=False)
    text = report_texts(collect(run.store, run.setup, stopped), False)["report.md"]
    assert "In 2 of 3 generations (stopped before its end)" in text


def test_a_run_that_has_had_its_evaluations_has_come_to_its_end(tmp_path):
    made = make_run(tmp_path, evaluations=30, generations=90)
    text = report_texts(collect(made.store, made.setup, made.outcome), False)["report.md"]
    generations = len(made.outcome.generations)
    assert generations < 90
    assert f"In {generations} generations and 30 evaluations" in text


def test_a_rule_that_fails_on_test_alone_keeps_its_other_scores(tmp_path):
    folder = tmp_path / "data"
    for split in ("train", "test"):
        (folder / split).mkdir(parents=True)
        profile = json.loads((ROOT / "datasets" / "reference" / "test.json").read_text())
        profile["name"] = split
        if split == "test":
            kept = [profile["formats"].index(name) for name in ("INT8", "FP32")]
            profile["formats"] = ["INT8", "FP32"]
            for layer in profile["layers"]:
                layer["sensitivity"] = [layer["sensitivity"][place] for place in kept]
        (folder / split / "one.json").write_text(json.dumps(profile))
    run = make_run(tmp_path, datasets=str(folder), start_from="uniform_fp16", operators={"parameters": 1})
    train, test = run.contents.tables
    assert train.champion.fitness > 3
    assert test.champion.failure
    assert "and fails on test" in run.text()
    assert run.contents.maps[-1].champion is None
    assert "fails: expected one of the model's formats INT8, FP32" in run.text()


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (code("a|b`c"), "``a|b`c``"),
        (code("``x` y"), "``` ``x` y ```"),
        (code(""), "–"),
        (code_cell("a|b`c"), r"``a\|b`c``"),
        (code_cell(""), "–"),
        (prose("x_y <b> a|b *c* $d$ _e_"), r"x_y \<b\> a\|b \*c\* \$d\$ \_e\_"),
        (fenced("a\n```\nb\n", "python"), "````python\na\n```\nb\n````"),
        (number(None), "–"),
        (number(-1.23456), "−1.2346"),
        (percent(0.999999), "99.99 %"),
        (percent(1.0), "100.00 %"),
        (percent(1 - 1e-13), "100.00 %"),
        (signed(0.00001), "0"),
        (signed(-0.5), "−0.5000"),
        (signed(0.5, 2), "+0.50"),
    ],
)
def test_text_for_people(shown, expected):
    assert shown == expected
