"""Python source of rules: what does not load is named, and what it does is counted."""

from __future__ import annotations

import ast

import pytest

from evolve.errors import TemplateError
from evolve.heuristics import ParameterValues
from evolve.plugins import load_catalogue
from evolve.python_source import compile_rule, complexity


@pytest.mark.parametrize(
    ("source", "line", "said"),
    [
        ("def allocate(model, p):\n    return (\n", 2, "not Python: '(' was never closed, found 'return ('"),
        ("import numpy\n\nx = 1 / 0\n", 3, "fails when loaded: ZeroDivisionError: division by zero"),
        ("def helper():\n    raise KeyError('x')\n\nhelper()\n", 2, "fails when loaded: KeyError: 'x'"),
        ("import sys\nsys.exit(3)\n", 2, "fails when loaded: SystemExit: 3"),
        ("import no_such_module\n", 1, "No module named 'no_such_module'"),
        ("def allocate(model: Model, p): ...\n", 1, "name 'Model' is not defined"),
        ("import ast\nast.parse('1 +')\n", 2, "fails when loaded: SyntaxError"),
    ],
)
def test_a_source_that_does_not_load_is_named_by_its_line(source, line, said):
    with pytest.raises(TemplateError) as caught:
        compile_rule(source, "rule.py")
    assert (caught.value.file, caught.value.place) == ("rule.py", f"line {line}")
    assert said in str(caught.value)


@pytest.mark.parametrize("source", ["", "allocate = 3\n", "def alocate(model, p): ...\n"])
def test_a_source_without_a_rule_is_refused(source):
    with pytest.raises(TemplateError, match=r"rule\.py: defines no rule; expected a function allocate"):
        compile_rule(source, "rule.py")


def test_null_bytes_are_refused():
    with pytest.raises(TemplateError, match=r"rule\.py: not Python: source code string cannot contain null"):
        compile_rule("x = '\0'", "rule.py")


def test_rules_do_not_see_each_other():
    compile_rule("shared = 1\ndef allocate(model, p): ...")
    rule = compile_rule("def allocate(model, p):\n    return shared")
    with pytest.raises(NameError):
        rule(None, ParameterValues({}))


@pytest.mark.parametrize("rule", load_catalogue().select(["all"]), ids=lambda each: each.name)
def test_complexity_is_the_number_of_nodes_of_the_body(rule):
    source = rule.template.source(rule.candidate)
    (allocate,) = (
        each
        for each in ast.parse(source).body
        if isinstance(each, ast.FunctionDef) and each.name == "allocate"
    )
    body = allocate.body[1:] if ast.get_docstring(allocate) else allocate.body
    assert complexity(source) == sum(1 for each in body for _ in ast.walk(each))


def test_complexity_counts_what_the_rule_does_and_not_how_it_is_described():
    bare = "def allocate(model, p):\n    return model.select(otherwise='FP16')\n"
    described = (
        'import os\n\n@decorate(many=[1, 2, 3])\ndef allocate(model: "View", p: "Values") -> "Choices":\n'
        '    """Say something."""\n    return model.select(otherwise="FP16")\n'
    )
    # Return, Call, Attribute, Name and its Load, the attribute's Load, keyword, Constant.
    assert complexity(bare) == complexity(described) == 8
    longer = "def allocate(model, p):\n    mask = model.depth < 3\n" + bare.splitlines()[1]
    assert complexity(longer) > complexity(bare)
