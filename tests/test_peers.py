"""The comparison with other tools, at budgets that show only that it works."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

for package in ("pymoo", "nevergrad", "optuna", "cmaes"):
    pytest.importorskip(package, reason=f"needs {package}: pip install 'evolve-precision[peers]'")

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
try:
    import peers
    from peer_comparison import each_model, outcomes, problems, same_numbers, tables, tools
finally:
    sys.path.remove(str(BENCHMARKS))

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
EVALUATIONS = 60


def peak(points):
    return 1 - ((points - 0.3) ** 2).mean(axis=1)


@pytest.mark.parametrize("choices", [None, 5])
@pytest.mark.parametrize("name", list(tools.TOOLS))
def test_every_tool_starts_at_the_start_spends_the_budget_and_repeats_itself(name, choices):
    space = problems.Space(6, choices, 12)
    start = np.full(6, 1.0 if choices is None else 4.0)
    histories = []
    for _ in range(2):
        asked = []

        def evaluate(points, asked=asked):
            asked += points.tolist()
            return peak(points / space.high)

        recorder = problems.Recorder(evaluate, space, EVALUATIONS)
        tools.run_tool(name, recorder, space, start, seed=3)
        histories.append(asked)
    assert histories[0] == histories[1]
    assert len(histories[0]) == EVALUATIONS
    assert start.tolist() in histories[0][:12]
    assert recorder.best_so_far[-1] > peak(start[None] / space.high)
    if choices is not None:
        assert set(np.unique(histories[0])) <= set(range(choices))


def test_nevergrad_takes_no_seed_from_the_clock_where_it_chooses_cma_es():
    space = problems.Space(9, None, 24)
    histories = []
    for _ in range(2):
        asked = []

        def evaluate(points, asked=asked):
            asked += points.tolist()
            if len(asked) >= EVALUATIONS:
                raise problems.BudgetSpentError
            return peak(points)

        # The budget that nevergrad is told decides what it chooses.
        recorder = problems.Recorder(evaluate, space, 1000)
        tools.run_tool("nevergrad NGOpt", recorder, space, np.full(9, 0.9), seed=0)
        histories.append(asked)
    assert histories[0] == histories[1]


def test_tools_leave_the_global_generators_alone():
    space = problems.Space(3, None, 8)
    np.random.seed(1)  # noqa: NPY002 - the generator that is checked
    expected = np.random.random()  # noqa: NPY002
    np.random.seed(1)  # noqa: NPY002
    tools.run_tool("deap eaSimple", problems.Recorder(peak, space, 20), space, np.zeros(3), seed=0)
    assert np.random.random() == expected  # noqa: NPY002


def test_the_recorder_counts_and_stops():
    space = problems.Space(2, 3, 4)
    recorder = problems.Recorder(lambda points: points.sum(axis=1), space, 3)
    assert recorder(np.array([[0.4, 0.0], [1.6, 9.0]])).tolist() == [0.0, 4.0]
    with pytest.raises(problems.BudgetSpentError):
        recorder(np.ones((5, 2)))
    assert recorder.best_so_far.tolist() == [0.0, 4.0, 4.0]
    assert recorder.best_point.tolist() == [2.0, 2.0]


def test_our_search_changes_nothing_but_numbers_and_starts_where_the_others_do():
    ours = same_numbers.run("reference", same_numbers.OURS, 1, 40)
    theirs = same_numbers.run("reference", "CMA-ES (cmaes)", 1, 40)
    assert ours.best_so_far[0] == theirs.best_so_far[0]
    assert len(ours.best_so_far) == len(theirs.best_so_far) == 40
    assert ours.share_at(40) > ours.share_at(1)
    again = same_numbers.run("reference", same_numbers.OURS, 1, 40)
    assert again.best_so_far.tolist() == ours.best_so_far.tolist()


def test_direct_search_starts_at_the_best_uniform_format():
    (model,) = each_model.choose_models("suite", 1, 30)
    outcome = each_model.run("suite", model, "pymoo GA", 0, 30)
    formats = len(each_model.model_named("suite", model).formats)
    assert outcome.share_at(30) >= outcome.share_at(formats) > 0
    assert each_model.run("suite", model, "pymoo GA", 0, 2).best_so_far.shape == (2,)


def test_rules_need_no_evaluation_of_a_new_model():
    models = each_model.choose_models("suite", 2, 60)
    rules = {each.name: each for each in each_model.rules_on("suite", models)}
    two_lines = rules[each_model.TWO_LINES]
    assert two_lines.level == "metadata"
    assert set(two_lines.shares) == set(models)
    assert rules[each_model.CHAMPION].level == "curves"
    assert all(0 < share <= 1 for each in rules.values() for share in each.shares.values())


def test_counts_that_are_never_reached_are_larger_than_all_others():
    assert outcomes.quartiles_of_counts([1, 2, 3, float("inf")]) == (2.0, 3.0, float("inf"))
    curve = outcomes.Outcome("tool", "", 0, np.array([0.1, 0.5, 0.5]), 0.0)
    assert curve.evaluations_to(0.5) == 2
    assert curve.evaluations_to(0.6) == float("inf")
    assert curve.share_at(99) == 0.5


def test_the_whole_comparison_gives_json_and_tables():
    words = (
        "--seeds 2 --evaluations 30 --direct-seeds 1 --direct-evaluations 40 --tpe-evaluations 10 "
        "--models 2 --most-layers 30"
    )
    results = peers.compare(peers.parse(words.split()))
    assert json.loads(json.dumps(results, allow_nan=False)) == results
    assert list(results["same_numbers"]["tools"]) == list(same_numbers.contestants())
    assert results["each_model"]["tools"]["Optuna TPE"]["evaluations"] == 10
    pages = peers.markdown(results)
    assert list(pages) == ["numbers", "models"]
    for text in pages.values():
        assert all(text.count(f"| {name} |") == 2 for name in tools.TOOLS)
    assert tables.numbers_markdown(results["same_numbers"]) in pages["numbers"]
    assert tables.models_markdown(results["each_model"]) in pages["models"]


def test_a_comparison_that_was_not_made_stays_on_the_page_as_it_was(tmp_path, monkeypatch, capsys):
    page = tmp_path / "peers.md"
    marked = [
        f"<!-- peers, {name}: begin -->\nold\n<!-- peers, {name}: end -->" for name in ("numbers", "models")
    ]
    page.write_text("\n\n".join(marked), encoding="utf-8")
    words = (
        "--only models --direct-seeds 1 --direct-evaluations 20 --tpe-evaluations 5 "
        "--models 1 --most-layers 30"
    )
    monkeypatch.setattr("sys.argv", ["peers.py", *words.split(), "--write", str(page)])
    peers.main()
    numbers, models = page.read_text(encoding="utf-8").split("\n\n", 1)
    assert numbers == marked[0]
    assert capsys.readouterr().out.strip() in models
