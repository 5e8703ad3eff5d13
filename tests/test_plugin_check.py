"""What the check of a plugin finds, and the plugins it writes."""

from __future__ import annotations

import re
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from evolve import rule_calls
from evolve.datasets import Dataset, find_dataset
from evolve.errors import PluginError
from evolve.expressions import OPERATIONS, TABLES
from evolve.formats import get_formats
from evolve.new_plugins import new_plugin
from evolve.plugin_check import check_plugin
from evolve.plugin_files import general_templates, load_plugin
from evolve.plugins import load_catalogue
from evolve.signals import LEVELS, PER_LAYER_SIGNALS

ROOT = Path(__file__).parents[1]
REFERENCE = find_dataset(ROOT / "datasets" / "reference")
SHIPPED = load_catalogue([ROOT / "heuristics"]).heuristics


def check(tmp_path, text, name="mine.py", datasets=(REFERENCE,)):
    """Write a plugin and return its file and what the check says."""
    file = tmp_path / name
    file.write_text(textwrap.dedent(text))
    return file, check_plugin(load_plugin(file), datasets)


HEAD = """\
import numpy as np
from evolve.heuristics import heuristic, linear, log

calls = []


def helper(values):
    return values[10_000]


@heuristic(parameters=[{parameters}])
def allocate(model, p):
"""


def rule(*lines, parameters=""):
    """The text of a plugin; the first of these lines is line 13."""
    return HEAD.format(parameters=parameters) + "".join(f"    {line}\n" for line in lines)


@pytest.mark.parametrize("name", SHIPPED)
def test_what_ships_has_no_faults(name):
    faults = check_plugin(SHIPPED[name], [REFERENCE])
    if SHIPPED[name].role == "discovered":
        # They were found on other models, and not every number of theirs matters on these.
        faults = tuple(each for each in faults if "changes nothing" not in each)
    assert faults == ()


EDGE = 'linear("edge", 0.1, 0.0, 0.5)'
ENDS = 'model.where(model.edge_distance < p.edge, "FP32", "FP16")'

# name: (plugin, line, what is said)
FAULTY = {
    "raises": (rule("x = 1", "return {}[x]"), 14, "KeyError: 1 (model train and 2 more)"),
    "raises_in_a_helper": (rule("return helper(model.depth)"), 8, "IndexError: index 10000 is out of bounds"),
    "raises_in_numpy": (rule("y = 2", "return np.stack([])"), 14, "ValueError: need at least one array"),
    "exits": (rule("raise SystemExit(0)"), 13, "SystemExit"),
    "calls_itself": (rule("return allocate(model, p)"), 13, "RecursionError"),
    "nothing": (rule("model.select(otherwise='FP16')"), 12, "found object"),
    "a_number": (rule("return 3"), 13, "expected (N,) = (131,) or (P, N) = (1, 131), found ()"),
    "a_table": (rule("x = 1", "return model.bits.astype(int)"), 14, "found (5, 1, 1)"),
    "one_layer_less": (rule("return model.select(otherwise='FP16')[1:]"), 13, "found (130,)"),
    "ragged": (rule("return [[0], [0, 1]]"), 13, "ValueError: setting an array element with a sequence"),
    "real_numbers": (rule("return model.depth"), 13, "expected format indices from model.where"),
    "truth_values": (rule("return model.is_type('Conv')"), 13, "found bool"),
    "names": (rule("return ['FP16'] * model.num_layers"), 13, "found <U4"),
    "index_too_large": (rule("return np.full(model.num_layers, 5)"), 13, "format indices 0 to 4, found 5"),
    "index_negative": (rule("return np.full(model.num_layers, -1)"), 13, "expected format indices 0 to 4"),
    "unknown_format": (
        rule("return model.select(otherwise='INT3')"),
        13,
        "expected one of the model's formats INT2, INT4, INT8, FP16, FP32, found 'INT3'",
    ),
    "unused_unknown_format": (rule("return model.where(model.depth < 0, 'FP8', 'FP16')"), 13, "found 'FP8'"),
    "unknown_type": (rule("return model.where(model.is_type('Dense'), 'FP32', 'FP16')"), 13, "found 'Dense'"),
    "unknown_signal": (
        rule("return model.where(model.height > 1, 'FP32', 'FP16')"),
        13,
        "models have no height",
    ),
    "undeclared_parameter": (rule("return " + ENDS), 13, "reads parameter p.edge, which is not declared"),
    "writes_into_the_model": (
        rule("model.depth[0] = 3", "return model.select(otherwise='FP16')"),
        13,
        "ValueError: assignment destination is read-only",
    ),
    "random": (
        rule(
            "noise = np.random.default_rng().random(model.num_layers)",
            "return model.where(noise < 0.5, 'FP32', 'FP16')",
        ),
        14,
        "gives another allocation when called again",
    ),
    "counts_its_calls": (
        rule("calls.append(1)", "return model.select(otherwise='FP16' if len(calls) % 2 else 'FP32')"),
        14,
        "gives another allocation when called again",
    ),
    "fails_the_second_time": (
        rule("calls.append(1)", "x = 1 // (2 - len(calls))", "return model.select(otherwise='FP16')"),
        14,
        "ZeroDivisionError: integer division or modulo by zero (when called again)",
    ),
    "adds_up_all_models": (
        rule(
            "share = model.num_params / model.num_params.sum()",
            "return model.where(share > 0.01, 'FP32', 'FP16')",
        ),
        14,
        "side by side otherwise than alone. Whatever adds up, compares or sorts the layers",
    ),
    "asks_for_one_model": (
        rule("(depth,) = set(model.depth.tolist())", "return model.select(otherwise='FP16')"),
        13,
        "ValueError: too many values to unpack (expected 1) (several models side by side)",
    ),
    "asks_a_parameter_for_truth": (
        rule("return model.select(otherwise='FP32' if p.edge > 0.2 else 'FP16')", parameters=EDGE),
        13,
        "(several parameter vectors in one call, each p.name of shape (P, 1))",
    ),
    "mixes_parameter_vectors": (
        rule(f"return {ENDS}".replace("p.edge", "p.edge.max()"), parameters=EDGE),
        13,
        "allocates parameter vectors in one call otherwise than each alone",
    ),
    "raises_at_a_bound": (
        rule(
            "if (p.edge == 0.5).any():", "    raise ValueError('too far')", "return " + ENDS, parameters=EDGE
        ),
        14,
        "ValueError: too far (with edge = 0.5)",
    ),
    "parameter_without_effect": (
        rule("p.other", "return " + ENDS, parameters=EDGE + ', log("other", 2, 1, 10)'),
        13,
        "parameter other changes nothing between 1 and 10",
    ),
}


@pytest.mark.parametrize("name", FAULTY)
def test_a_fault_is_named_by_file_and_line(tmp_path, name):
    text, line, said = FAULTY[name]
    file, (problem,) = check(tmp_path, text)
    assert problem.startswith(f"{file}, line {line}: ")
    assert said in problem


def test_a_parameter_nobody_reads_has_no_line(tmp_path):
    file, (problem,) = check(tmp_path, rule("return model.select(otherwise='FP16')", parameters=EDGE))
    assert problem == f"{file}: parameter edge changes nothing between 0 and 0.5"


def test_each_fault_is_named_once_with_the_models_it_has(tmp_path):
    body = rule(
        "if model.num_layers == 27:",
        "    return model.sensitivity('INT3')",
        "return [][0]",
    )
    file, problems = check(tmp_path, body)
    assert problems == (
        f"{file}, line 15: IndexError: list index out of range (model train and 1 more)",
        f"{file}, line 14: expected one of the model's formats INT2, INT4, INT8, FP16, FP32, found 'INT3' "
        "(model test)",
    )


def test_a_fault_of_a_code_template_quotes_the_rendered_line(tmp_path):
    text = """\
        {#
        [slots.narrow]
        type = "format"
        default = "INT3"
        #}
        def allocate(model, p):
            ends = model.edge_distance < 0.1
            return model.where(ends, "FP32", "{{ narrow }}")
        """
    file, (problem,) = check(tmp_path, text, "mine.py.j2")
    assert problem == (
        f'{file}, rendered line 3 `return model.where(ends, "FP32", "INT3")`: expected one of the model\'s '
        "formats INT2, INT4, INT8, FP16, FP32, found 'INT3' (model train and 2 more)"
    )


def test_a_number_of_a_slot_that_changes_nothing_is_named(tmp_path):
    text = """\
        {#
        template = "ladder"
        [slots]
        clauses = [['model.depth < p.x', "FP16"]]
        otherwise = "FP16"
        [parameters]
        x = 30
        #}
        """
    file, (problem,) = check(tmp_path, text, "mine.py.j2")
    assert problem == (
        f"{file}, rendered line 2 `low_depth = model.depth < p.depth`: "
        "parameter depth changes nothing between 5 and 1000"
    )


def test_an_endless_rule_is_stopped_and_the_check_goes_no_further(tmp_path, monkeypatch):
    monkeypatch.setattr(rule_calls, "TIME_LIMIT", 0.1)
    file, (problem,) = check(tmp_path, rule("x = 0", "while True:", "    x += 1"))
    assert re.match(
        rf"{re.escape(str(file))}, line 1[45]: the rule took longer than 0.1 s \(model train\)", problem
    )


def test_every_model_of_every_data_set_is_tried(tmp_path):
    (test,) = REFERENCE.test
    formats = get_formats(["INT4", "INT5", "INT8", "BF16", "FP32"])
    other = Dataset("other", (replace(test, name="of other formats", formats=formats),), (), ())
    _, (problem,) = check(
        tmp_path, rule("return model.select(otherwise='FP16')"), datasets=(REFERENCE, other)
    )
    assert problem.endswith("formats INT4, INT5, INT8, BF16, FP32, found 'FP16' (model of other formats)")
    _, problems = check(tmp_path, rule("return model.narrowest(model.bits > 8)"), datasets=(REFERENCE, other))
    assert problems == ()


def test_one_model_alone_is_enough_to_find_rules_that_mix_models(tmp_path):
    alone = Dataset("alone", REFERENCE.train, (), ())
    text, _, said = FAULTY["adds_up_all_models"]
    _, (problem,) = check(tmp_path, text, datasets=(alone,))
    assert said in problem


@pytest.mark.parametrize("kind", ["function", "code"])
def test_a_new_plugin_works_as_written(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    file = new_plugin("mine", Path("heuristics"), kind)
    assert file == Path("heuristics") / ("mine.py" if kind == "function" else "mine.py.j2")
    found = load_catalogue().get("mine")
    assert (found.role, found.template.kind) == ("user", kind)
    assert found.summary
    assert found.source
    assert len(found.candidate.parameters) == 2
    assert check_plugin(found, [REFERENCE]) == ()
    # It teaches what there is.
    text = file.read_text()
    for word in (*LEVELS, *PER_LAYER_SIGNALS, "sensitivity", "loss", "is_type"):
        assert word in text


def test_a_new_plugin_does_not_disturb_the_others(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    new_plugin("mine", Path("heuristics"), "function")
    new_plugin("mine_too", Path("heuristics"), "function")
    with pytest.raises(PluginError, match=r"heuristics/mine\.py: exists already"):
        new_plugin("mine", Path("heuristics"), "function")
    with pytest.raises(PluginError, match=r"heuristics/mine\.py: exists already"):
        new_plugin("mine", Path("heuristics"), "code")
    with pytest.raises(PluginError, match=r"mine\.py: there is a plugin mine already"):
        new_plugin("mine", Path("elsewhere"), "function")
    assert not Path("elsewhere").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("", "bad name"),
        ("two words", "bad name"),
        ("3d", "bad name"),
        ("../up", "bad name"),
        ("class", "bad name"),
        ("_hidden", "bad name; expected a Python identifier that is no keyword and does not start with an"),
        ("uniform_fp16", "there is a plugin uniform_fp16 already"),
        ("ladder", "this name means something else"),
        ("all", "this name means something else"),
        ("baseline", "this name means something else; expected another name than a role's"),
    ],
)
def test_names_that_cannot_be_used_are_refused(tmp_path, monkeypatch, name, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PluginError, match=re.escape(said)):
        new_plugin(name, tmp_path / "heuristics", "function")
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PluginError, match=r"file.mine\.py: cannot be written"):
        new_plugin("mine", tmp_path / "file", "function")
    with pytest.raises(PluginError, match=r"unknown kind; expected one of function, code, .*, found 'class'"):
        new_plugin("mine", tmp_path, "class")


GUIDE = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"`heuristics/(\w+\.py(?:\.j2)?)`:\n\n```\w+\n(.*?)```", GUIDE, re.DOTALL)


def test_the_guide_has_an_example_of_each_kind():
    endings = [name.split(".", 1)[1] for name, _ in EXAMPLES]
    assert {"py", "py.j2"} == set(endings)


@pytest.mark.parametrize(("name", "text"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_the_examples_of_the_guide_work(tmp_path, name, text):
    file = tmp_path / name
    file.write_text(text)
    found = load_plugin(file)
    assert found.source
    assert found.summary
    assert check_plugin(found, [REFERENCE]) == ()


def test_the_guide_shows_what_its_example_renders_to(tmp_path):
    (rendered,) = re.findall(r"renders to\n\n```python\n(.*?)```", GUIDE, re.DOTALL)
    (name, text) = next(each for each in EXAMPLES if each[0].endswith(".j2"))
    (tmp_path / name).write_text(text)
    found = load_plugin(tmp_path / name)
    assert found.template.source(found.candidate) == rendered


def test_the_guide_knows_every_word_of_the_language():
    symbols = {
        "less": "a < b",
        "greater": "a > b",
        "and": "a & b",
        "or": r"a \| b",
        "not": "~a",
        "add": "a + b",
        "subtract": "a - b",
        "multiply": "a * b",
        "divide": "a / b",
        "negative": "-a",
    }
    functions = ("log", "sqrt", "exp", "where")
    for name in {each.name for each in OPERATIONS}:
        written = symbols.get(name, f"np.{name}" if name in functions else f"model.{name}(")
        assert f"`{written}" in GUIDE, name
    for name in (*PER_LAYER_SIGNALS, *TABLES, "is_type(", "sensitivity("):
        assert f"`model.{name}" in GUIDE, name
    for name in (*general_templates(), *LEVELS):
        assert f"`{name}`" in GUIDE, name
