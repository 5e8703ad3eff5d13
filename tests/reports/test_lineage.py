from __future__ import annotations

import difflib
import re

import pytest
from small_runs import make_run

from evolve.candidates import Candidate, Evaluation, Offspring, Scored, SplitScore
from evolve.plugin_files import general_templates
from evolve.reports import lineage
from evolve.reports.lineage import ancestry, main_line, mermaid, render_lineage

TEMPLATES = general_templates()


def ladder(**values: float) -> Candidate:
    masks = (("model.num_params < p.num_params", "FP32"),) if values else ()
    return Candidate("ladder", (("clauses", masks), ("otherwise", "FP16")), tuple(values.items()))


def scored(
    candidate: Candidate, generation: int, fitness: float | None, operator: str, *parents: str, change="it"
):
    split = (
        None if fitness is None else SplitScore(fitness, fitness, 2.0, 0.99, 16.0, fitness / 4, fitness / 4)
    )
    evaluation = (
        Evaluation("failed", "wrong shape", "no") if split is None else Evaluation("ok", "", "", split, split)
    )
    return Scored(Offspring(candidate, operator, parents, change), evaluation, generation)


@pytest.fixture
def family() -> list[Scored]:
    """Two seeds, a mutation, a failure, a crossover of both lines, and one that is nobody's parent."""
    seed, other, child = ladder(), ladder(num_params=1e4), ladder(num_params=2e4)
    broken, champion, idle = ladder(num_params=3e4), ladder(num_params=4e4), ladder(num_params=5e4)
    return [
        scored(seed, 0, 1.0, "seed", change="plain|name"),
        scored(other, 0, 2.0, "seed", change="other"),
        scored(idle, 0, 3.0, "parameters", seed.id),
        scored(child, 1, 2.5, "parameters", other.id),
        scored(broken, 1, None, "structure", seed.id),
        scored(champion, 2, 3.0, "crossover", broken.id, child.id),
    ]


def steps_of(family, splits=("train", "valid")):
    return ancestry(family[-1], family, TEMPLATES, splits)


def test_all_parents_are_followed_to_the_seeds(family):
    steps = steps_of(family)
    assert [step.operator for step in steps] == ["seed", "seed", "parameters", "structure", "crossover"]
    assert [step.number for step in steps] == [1, 2, 3, 4, 5]
    assert [[parent.number for parent in step.parents] for step in steps] == [[], [], [2], [1], [4, 3]]


def test_parents_come_before_their_offspring(run):
    for step in run.contents.lineage:
        assert all(parent.number < step.number for parent in step.parents)
        assert bool(step.parents) == (step.operator != "seed")


def test_gain_is_over_the_better_parent(family):
    *_, broken, champion = steps_of(family)
    assert [score.gain for score in champion.scores] == [0.5, 0.5]
    assert champion.scores[0].ratio_gain == pytest.approx(0.125)
    assert [score.fitness for score in broken.scores] == [None, None]
    assert broken.failure == "wrong shape"


def test_no_gain_over_parents_that_failed(family):
    family[3] = scored(family[3].candidate, 1, None, "parameters", family[1].candidate.id)
    assert [score.gain for score in steps_of(family)[-1].scores] == [None, None]


def test_difference_turns_the_parents_source_into_the_childs(run):
    steps = {step.id: step for step in run.contents.lineage}
    for step in steps.values():
        if step.parents:
            before = steps[step.parents[0].id].source.splitlines()
            after = step.source.splitlines()
            expected = list(difflib.unified_diff(before, after, step.parents[0].id, step.id, lineterm=""))
            assert step.difference.split("\n") == expected
            assert "```diff" in run.text("lineage.md")


def test_a_changed_number_is_part_of_the_difference(family):
    mutated = steps_of(family)[2]
    assert "-# p.num_params = 10000.0\n+# p.num_params = 20000.0" in mutated.difference


def test_graph_has_every_step_and_edge(family):
    graph = mermaid(steps_of(family))
    assert 's1["1 plain name<br/>train 25.00 %"]' in graph
    assert 's4["4 structure<br/>failed"]' in graph
    assert re.findall(r"(s\d) (-->|-\.->) (s\d)", graph) == [
        ("s2", "-->", "s3"),
        ("s1", "-->", "s4"),
        ("s4", "-->", "s5"),
        ("s3", "-.->", "s5"),
    ]
    assert "class s1,s2 seed" in graph
    assert "class s5 champion" in graph


def test_graph_has_only_what_mermaid_takes(run):
    graph = re.search(r"```mermaid\n(.*?)\n```", run.text("lineage.md"), re.DOTALL)[1]
    node = r's\d+\["[A-Za-z0-9_.,+ -]+<br/>(failed|train [0-9.]+ %)"\]'
    edge = r"s\d+ (-->|-\.->) s\d+"
    style = r"classDef \w+ [a-z0-9#:,-]+|class [s0-9,]+ \w+"
    for line in graph.split("\n")[1:]:
        assert re.fullmatch(rf"    ({node}|{edge}|{style})", line), line


def test_a_large_ancestry_is_drawn_by_its_main_line(family, monkeypatch):
    monkeypatch.setattr(lineage, "MOST_NODES", 3)
    steps = steps_of(family)
    text = render_lineage(steps)
    assert [step.number for step in main_line(steps)] == [1, 4, 5]
    assert 's3["' not in text
    assert "## Step 3" in text
    assert "too large for a picture" in text


def test_one_split_has_one_pair_of_columns(family):
    text = render_lineage(steps_of(family, ("train",)))
    assert "| step | generation | operator | change | from | train | gain |\n" in text
    assert "valid" not in text


def test_without_a_champion_it_says_so(hopeless):
    assert "No candidate worked" in hopeless.text("lineage.md")


def test_every_step_has_its_heading(run):
    text = run.text("lineage.md")
    for step in run.contents.lineage:
        assert f"## Step {step.number}\n" in text
        assert f"`{step.id}`, generation {step.generation}" in text


def test_crossovers_of_a_real_run_have_two_parents(tmp_path):
    # Whether a champion descends from a crossover is luck: that of the first such seed.
    for seed in range(20):
        found = make_run(
            tmp_path / str(seed),
            population=24,
            generations=6,
            operators={"structure": 1, "crossover": 2},
            seed=seed,
        )
        crossed = [step for step in found.contents.lineage if step.operator == "crossover"]
        if crossed:
            break
    assert crossed
    assert all(1 <= len(step.parents) <= 2 for step in crossed)
