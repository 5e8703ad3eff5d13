"""Operators, code templates and strategies from plugins: found, used, checked, part of a run's hash."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from evolve.configuration import RunConfig, parse_operators
from evolve.engine import search
from evolve.errors import InputError, PluginError, RunError
from evolve.extension_check import check_extension, check_template
from evolve.new_plugins import new_plugin
from evolve.plugins import find_heuristics, find_plugin, load_catalogue
from evolve.reports.verification import verify
from evolve.reports.writer import write_report
from evolve.search import STRATEGIES
from evolve.search.base import OPERATORS
from evolve.setup import check_unchanged, prepare_run, stored_config
from evolve.store import RunStore, create_run

SEEDS = ("uniform_fp16", "mixed_fp16_int8", "hybrid", "sensitivity_threshold")
OPERATOR = """
import random
from evolve.extensions import operator

@operator()
def vary(parent, template, words):
    \"\"\"Redraws a format or a number.\"\"\"
    BODY
"""
TWO_PARENTS = """
from evolve.extensions import operator
from evolve.variation import cross_structure

@operator(parents=2)
def vary(first, second, templates, words):
    \"\"\"Crosses two.\"\"\"
    return cross_structure(first, second, templates)
"""
STRATEGY = """
import random
from evolve.extensions import strategy
from evolve.search.random_search import RandomSearch

@strategy
class Mine(RandomSearch):
    \"\"\"Random search with a twist.\"\"\"
    BODY
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "heuristics").mkdir()
    return tmp_path / "heuristics"


def write(folder: Path, name: str, form: str, body: str = "pass") -> Path:
    file = folder / f"{name}.py"
    file.write_text(form.replace("BODY", body))
    return file


def problems(name: str) -> str:
    catalogue = load_catalogue()
    return "\n".join(check_extension(find_plugin(catalogue, name), catalogue))


def run(name: str, **settings: object):
    given = {"population": 16, "generations": 4, "start_from": SEEDS, "seed": 1}
    setup = prepare_run(RunConfig.from_json(given | settings))
    store = create_run(name, json.loads(json.dumps(setup.resolved())))
    return store, setup, search(setup, store)


class TestFinding:
    @pytest.mark.parametrize("kind", ["operator", "strategy", "template"])
    def test_a_new_one_has_no_faults(self, kind):
        new_plugin("mine", Path("heuristics"), kind)
        catalogue = load_catalogue()
        assert catalogue.broken == ()
        found = find_plugin(catalogue, "mine")
        assert found.summary.endswith(".")
        if kind == "template":
            assert check_template(found, catalogue) == ()
        else:
            assert found.kind == kind
            assert check_extension(found, catalogue) == ()
            assert check_extension(find_plugin(catalogue, found.file), catalogue) == ()

    @pytest.mark.parametrize("name", ["structure", "genetic", "seed", "default", "all"])
    def test_names_that_mean_something_are_not_given(self, name, folder):
        with pytest.raises(PluginError, match="this name means something else"):
            new_plugin(name, folder, "operator")

    @pytest.mark.parametrize(
        ("name", "text", "line", "said"),
        [
            ("structure", OPERATOR, 6, "this name belongs to a built-in operator, found 'structure'"),
            ("genetic", STRATEGY, 7, "this name belongs to a built-in strategy, found 'genetic'"),
            ("two", OPERATOR + OPERATOR.split("operator\n", 1)[1], 11, "more than one operator or strategy"),
            (
                "short",
                OPERATOR.replace("parent, template, words", "parent"),
                6,
                "an operator cannot be called so; expected a function of (parent, template, words)",
            ),
            (
                "pairs",
                TWO_PARENTS.replace("first, second, templates", "first, templates"),
                6,
                "expected a function of (first, second, templates, words) for parents=2",
            ),
            ("three", OPERATOR.replace("operator()", "operator(parents=3)"), 5, "expected 1 or 2, found 3"),
            ("made", STRATEGY.replace("class Mine(RandomSearch)", "class Mine"), 7, "has no ask"),
            (
                "needy",
                STRATEGY.replace("    BODY", "    def __init__(self, problem, novelty, more): ..."),
                7,
                "cannot be made of a problem; expected def __init__(self, problem, novelty=None)",
            ),
            ("syntax", OPERATOR.replace("BODY", "return ("), 8, "not Python"),
            ("loading", OPERATOR.replace("import random", "import nowhere"), 2, "ModuleNotFoundError"),
            ("fake", "operator = lambda f: f\n@operator\ndef vary(): ...\n", 3, "declares nothing"),
        ],
    )
    def test_a_broken_one_is_named_by_file_and_line(self, folder, name, text, line, said):
        write(folder, name, text)
        catalogue = load_catalogue()
        assert [each.name for each in catalogue.broken] == [name]
        assert catalogue.extensions == {}
        message = str(catalogue.broken[0].error)
        assert said in message
        if name != "three":  # the decorator's own error knows no line
            assert message.startswith(f"{folder / name}.py, line {line}")
        # What is broken costs no other run anything, not even where it has the name of something built in.
        assert run("other", generations=1)[2].champion is not None

    def test_asked_for_by_name_a_broken_one_is_an_error(self, folder):
        write(folder, "bad", OPERATOR, "return (")
        with pytest.raises(PluginError, match=r"heuristics/bad\.py, line"):
            prepare_run(RunConfig(operators={"bad": 1.0}))
        with pytest.raises(PluginError, match=r"heuristics/bad\.py, line"):
            prepare_run(RunConfig(strategy="islands:bad"))

    def test_names_of_other_kinds_are_refused_by_what_they_are(self, folder):
        write(folder, "mine", TWO_PARENTS)
        with pytest.raises(PluginError, match="mine is no heuristic but an operator"):
            prepare_run(RunConfig(start_from=("mine",)))
        with pytest.raises(PluginError, match="mine is no heuristic but an operator"):
            find_heuristics(load_catalogue(), ["mine"])
        with pytest.raises(InputError, match="unknown strategy; expected one of genetic"):
            prepare_run(RunConfig(strategy="mine"))
        with pytest.raises(
            InputError, match=r"unknown operator; expected one of .*refine, mine, found 'hers'"
        ):
            prepare_run(RunConfig(operators={"hers": 1.0}))

    def test_default_stands_for_the_operators_built_in(self):
        assert parse_operators("default,mine=4") == {**OPERATORS, "mine": 4.0}
        assert parse_operators("default,structure=0")["structure"] == 0.0

    def test_a_plugin_may_hold_dataclasses(self, folder):
        helper = "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        helper += "@dataclass\nclass Helper:\n    number: int = 1\n"
        write(folder, "mine", helper + TWO_PARENTS)
        assert "mine" in load_catalogue().operators


class TestRunning:
    def test_an_operator_is_used_told_and_verified(self, folder):
        write(folder, "mine", TWO_PARENTS)
        store, setup, outcome = run("a", operators="default,mine=90")
        made = [each for each in outcome.scored if each.offspring.operator == "mine"]
        assert len(made) > 5
        assert all(len(each.offspring.parents) == 2 for each in made)
        assert "mine" in setup.new_strategy().state()["breeder"]["rates"]["tried"]
        report = write_report(store, setup, outcome, figures=False)
        rows = {
            each["operator"]: each for each in json.loads((report / "report.json").read_text())["operators"]
        }
        assert rows["mine"]["evaluations"] == len(made)
        assert rows["mine"]["words"] == "Crosses two"
        assert rows["mine"]["share"] == len(made) / (len(outcome.scored) - rows["seed"]["evaluations"])
        assert "| `mine` | Crosses two |" in (report / "report.md").read_text()
        assert verify(store, setup) == ()

    def test_the_default_run_is_the_same_beside_plugins(self, folder):
        alone = run("alone")[0]
        write(folder, "mine", TWO_PARENTS)
        write(folder, "hers", STRATEGY)
        new_plugin("form", folder, "template")
        beside = run("beside")[0]
        for name in ("config.json", "journal.jsonl", "snapshot.json"):
            assert (beside.path / name).read_bytes() == (alone.path / name).read_bytes()

    @pytest.mark.parametrize("strategy", ["mine", "islands:mine", "islands:2:mine"])
    def test_a_strategy_searches_on_islands_too(self, folder, strategy):
        new_plugin("mine", folder, "strategy")
        store, setup, outcome = run("a", strategy=strategy)
        assert len(outcome.scored) > 30
        write_report(store, setup, outcome, figures=False)
        assert verify(store, setup) == ()

    @pytest.mark.parametrize(
        ("kind", "settings"),
        [
            ("operator", {"operators": "default,mine"}),
            ("strategy", {"strategy": "islands:mine"}),
            ("template", {"start_from": [*SEEDS, "mine"]}),
        ],
    )
    def test_a_change_of_the_file_is_noticed(self, folder, kind, settings):
        file = new_plugin("mine", folder, kind)
        stored = run("a", **settings)[0].config()
        check_unchanged(prepare_run(stored_config(stored)), stored)
        text = file.read_text()
        changed = text.replace("mean_loss = loss.mean(axis=0)", "mean_loss = loss.max(axis=0)")
        file.write_text(changed if kind == "template" else text + "\n# another idea\n")
        assert file.read_text() != text
        with pytest.raises(RunError, match="have changed since this run was started"):
            check_unchanged(prepare_run(stored_config(stored)), stored)

    def test_a_change_of_what_a_run_does_not_use_is_not(self, folder):
        file = new_plugin("mine", folder, "operator")
        stored = run("a", operators="default,mine=0")[0].config()
        file.write_text(file.read_text() + "\n# another idea\n")
        check_unchanged(prepare_run(stored_config(stored)), stored)
        assert set(stored["hashes"]) == {"datasets", "heuristics"}

    def test_an_operator_that_raises_ends_its_run_with_file_and_line(self, folder):
        write(folder, "mine", OPERATOR, "return random.choice([])")
        with pytest.raises(
            PluginError, match=r"mine\.py, line 8: the operator raises IndexError.*check mine"
        ):
            run("a", operators="default,mine=90")
        # What was committed is a run that can be looked at.
        assert RunStore(Path("runs/a")).config()["operators"]["mine"] == 90.0

    def test_a_template_is_filled_anew_and_by_other_plugins(self, folder):
        new_plugin("form", folder, "template")
        header = '{#\ntemplate = "form"\n[slots]\nloss = "model.loss * model.depth"\n'
        header += 'strict = "model.edge_distance < p.edge"\n[parameters]\nedge = 0.1\n#}\n'
        (folder / "a_rule.py.j2").write_text(header)  # before the template in alphabetical order
        catalogue = load_catalogue()
        assert catalogue.broken == ()
        assert catalogue.get("a_rule").candidate.template == "form"
        _, _, outcome = run("a", start_from=[*SEEDS, "a_rule"], population=24, operators="default,template=9")
        made = [each for each in outcome.scored if each.candidate.template == "form"]
        assert len({each.candidate.structure for each in made}) > 3
        assert {each.offspring.operator for each in made} > {"seed", "template"}


class TestChecks:
    @pytest.mark.parametrize(
        ("body", "said"),
        [
            ("return random.choice([])", "line 8: the operator raises IndexError"),
            ("return parent, 'nothing'", "changes nothing in any of"),
            ("return parent", "returns no candidate; expected (candidate, words for the change)"),
            ("return parent, ''", "does not say what it changed"),
            (
                "from dataclasses import replace; return replace(parent, template='none'), 'x'",
                "unknown template",
            ),
            (
                "from dataclasses import replace; return replace(parent, slots=(('a', 'b'),)), 'x'",
                "returns a candidate that cannot be read",
            ),
            (
                "import numpy as np; np.random.rand(); from evolve.variation import mutate_structure; "
                "return mutate_structure(parent, template, words)",
                "draws from numpy's global generator",
            ),
            (
                "vary.calls = getattr(vary, 'calls', 0) + 1; from evolve.variation import mutate_structure; "
                "random.seed(vary.calls); return mutate_structure(parent, template, words)",
                "makes other candidates when called again with the same seed",
            ),
            (
                "vary.calls = getattr(vary, 'calls', 0) + 1; from evolve.variation import mutate_structure; "
                "random.seed(vary.calls % 2); return mutate_structure(parent, template, words)",
                "makes other candidates when called again with the same seed",
            ),
            (
                "from evolve.variation import mutate_structure; from evolve.grammar import vocabulary; "
                "return mutate_structure(parent, template, vocabulary(words.formats, 'curves'))",
                "above the level metadata",
            ),
        ],
    )
    def test_faults_of_operators(self, folder, body, said):
        file = write(folder, "mine", OPERATOR, body)
        found = problems("mine")
        assert said in found
        assert found.startswith(f"{file}, line ")

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            ("def ask(self): return [each.candidate for each in super().ask()]", "no list of .*Offspring"),
            ("def ask(self): return super().ask()[:0]", "raises ValueError when it is told"),
            ("def tell(self, scored): raise KeyError(3)", "raises KeyError when it is told: 3"),
            ("def state(self): return {'seen': {1, 2}}", "its state is not JSON"),
            ("def state(self): return {**super().state(), 1: 2}", "changes when it is written and read"),
            ("def state(self): return {**super().state(), 'n': float('nan')}", "its state is not JSON"),
            (
                "n = 0\n    def state(self):\n        self.n += 1\n"
                "        return {**super().state(), 'n': self.n}",
                "has another state once it is restored",
            ),
            ("def restore(self, state, archive): self._started = True", "once it is restored"),
            ("def welcome(self, immigrants): immigrants[0].objective", "raises AttributeError when it welc"),
            (
                "_odd = False\n    def ask(self): return super().ask()[self._odd :]\n"
                "    def tell(self, scored): self._odd = self._started = True",
                "asks for other candidates once it is restored",
            ),
            (
                "def ask(self):\n        asked = super().ask()\n        random.shuffle(asked)\n"
                "        self._asked = asked\n        return asked",
                "asks for other candidates when made again with the same seed",
            ),
            (
                "def ask(self):\n        import numpy\n        numpy.random.rand()\n"
                "        return super().ask()",
                "draws from numpy's global generator",
            ),
            (
                "def ask(self):\n        random.random()\n        return super().ask()",
                "leaves Python's global generator changed",
            ),
            (
                "def ask(self):\n        from dataclasses import replace\n"
                "        return [replace(each, parents=('nobody',)) for each in super().ask()]",
                "names a parent that was never asked for: 'nobody'",
            ),
            (
                "def ask(self):\n        from dataclasses import replace\n"
                "        return [replace(each, parents=()) for each in super().ask()]",
                "makes offspring without parents",
            ),
        ],
    )
    def test_faults_of_strategies(self, folder, body, said):
        file = write(folder, "mine", STRATEGY, body)
        found = problems("mine")
        assert re.search(said, found), found
        assert found.startswith(f"{file}, line 7: ")

    @pytest.mark.parametrize("name", STRATEGIES)
    def test_the_check_passes_what_ships(self, folder, name):
        made = f"from evolve.search import find_strategy\nmake = find_strategy('{name}')\n"
        methods = "\n".join(
            f"    def {method}(self, *given): return self._inner.{method}(*given)"
            for method in ("ask", "tell", "state", "restore", "welcome")
        )
        text = f"{made}from evolve.extensions import strategy\n@strategy\nclass Mine:\n"
        text += "    def __init__(self, problem, novelty=None): self._inner = make(problem, novelty)\n"
        text += f"{methods}\n"
        write(folder, "mine", text)
        assert problems("mine") == ""

    def test_a_template_that_fails_when_filled_is_named_with_what_its_slots_held(self, folder):
        file = new_plugin("mine", folder, "template")
        text = file.read_text()
        file.write_text(
            text.replace("loss = {{ loss }}", "loss = {{ loss }}\n    assert len(loss) > 1\n    loss[1]")
        )
        catalogue = load_catalogue()
        assert check_template(find_plugin(catalogue, "mine"), catalogue) == ()
        body = "    loss = {{ loss }}\n    if loss.shape[-1] == 1:\n        raise ValueError('bits')\n"
        file.write_text(text.replace("    loss = {{ loss }}\n", body))
        catalogue = load_catalogue()
        (problem,) = check_template(find_plugin(catalogue, "mine"), catalogue)
        assert "mine.py.j2: fails when filled at random: ValueError: bits (loss = " in problem
        assert "model.bits" in problem
        assert check_template(catalogue.get("hybrid"), catalogue) == ()
