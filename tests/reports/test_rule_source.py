"""A rule taken out of its plugin: with all that it needs, without this package, under free names."""

from __future__ import annotations

import numpy as np
import pytest

from evolve.candidates import Candidate
from evolve.datasets import find_dataset
from evolve.errors import PluginError
from evolve.evaluation import allocate
from evolve.heuristics import linear
from evolve.profile_files import profile_to_json
from evolve.python_source import compile_rule
from evolve.reports.champion import standalone_source
from evolve.reports.rule_source import rule_source
from evolve.templates import Template
from evolve.views import ModelView

TAKEN = {
    "allocate": "",
    "Model": "",
    "number": "",
    "main": "",
    "read": "",
    "Path": "from pathlib import Path",
}

RICH = '''"""A plugin with helpers, and names that the file uses too."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from evolve import heuristics
from evolve.heuristics import ModelView, ParameterValues, linear

PARAMETERS = [linear("edge", 0.1, 0.0, 0.5)]
# How much a type counts.
WEIGHTS: Mapping[str, float] = {"Conv": math.sqrt(2)}
WEIGHTS["Linear"] = 0.5  # less
UNUSED = Path("nowhere")


def number(model: ModelView, name: str):
    return WEIGHTS[name] * model.is_type(name)


def read(model):
    return UNUSED


def main(model: ModelView):
    linear = number(model, "Linear")
    return number(model, "Conv") + linear


@heuristics.heuristic(
    parameters=PARAMETERS,
)
def allocate(model: ModelView, p: ParameterValues) -> heuristics.Rule:
    # The rule's own comment.
    return model.where(main(model) * model.edge_distance > p.edge, "FP16", "INT8")


if __name__ == "__main__":
    print(allocate)
'''


def test_takes_what_the_rule_needs_under_free_names():
    found = rule_source(RICH, "mine.py", TAKEN)
    assert found.name == "rule"
    assert found.imports == ("import math", "from collections.abc import Mapping")
    assert (
        found.text
        == """# How much a type counts.
WEIGHTS: Mapping[str, float] = {"Conv": math.sqrt(2)}
WEIGHTS["Linear"] = 0.5  # less


def number_of_rule(model, name: str):
    return WEIGHTS[name] * model.is_type(name)


def main_of_rule(model):
    linear = number_of_rule(model, "Linear")
    return number_of_rule(model, "Conv") + linear


def rule(model, p):
    # The rule's own comment.
    return model.where(main_of_rule(model) * model.edge_distance > p.edge, "FP16", "INT8")"""
    )


def test_rich_plugin_allocates_as_here():
    template = Template("mine", RICH, (), (linear("edge", 0.1, 0.0, 0.5),), "mine.py", "function")
    text = standalone_source(Candidate("mine", (), (("edge", 0.1),)), template, title="A rule", facts={})
    assert "import math\nimport sys\nfrom collections.abc import Mapping\nfrom pathlib import Path\n" in text
    assert "evolve" not in text
    namespace = {"__name__": "champion"}
    exec(compile(text, "champion.py", "exec", dont_inherit=True), namespace)
    (profile,) = find_dataset("reference").test
    choices = allocate(compile_rule(RICH), ModelView([profile]), ("edge",), np.array([[0.1]]))
    assert namespace["allocate"](profile_to_json(profile)) == [
        profile.format_names[each] for each in choices[0]
    ]


def test_source_of_a_template_stays_as_it_is():
    source = "def allocate(model, p):\n    return model.select(otherwise='FP16')\n"
    assert rule_source(source, "x.py", TAKEN).text == source.replace("allocate", "rule").rstrip()


def test_name_of_the_rule_is_free():
    source = "def allocate(model, p):\n    rule = model.depth > 3\n    return model.where(rule, 'A', 'B')\n"
    found = rule_source(source, "x.py", TAKEN)
    assert found.name == "rule_"
    assert found.text.startswith("def rule_(model, p):\n    rule = model.depth")


def test_text_in_other_scripts_and_long_literals_stay():
    source = (
        '# größer\nfrom evolve.heuristics import ModelView\n\nA = """é\n   \n# no comment"""; B = 1\n\n\n'
        "def allocate(model: ModelView, p, é='ü', *, x: ModelView = None):\n    return (A, B, é)\n"
    )
    assert rule_source(source, "x.py", TAKEN).text == (
        'A = """é\n   \n# no comment"""; B = 1\n\n\n'
        "def rule(model, p, é='ü', *, x = None):\n    return (A, B, é)"
    )


@pytest.mark.parametrize(
    ("source", "place"),
    [
        (
            "from evolve.signals import LEVELS\ndef allocate(model, p):\n    return LEVELS\n",
            "mine.py, line 3",
        ),
        ("import evolve.signals\ndef allocate(model, p):\n    return evolve.signals\n", "mine.py, line 3"),
        (
            "def allocate(model, p):\n    from evolve.signals import LEVELS\n    return LEVELS\n",
            "mine.py, line 2",
        ),
        ("from evolve.signals import *\ndef allocate(model, p):\n    return LEVELS\n", "mine.py, line 1"),
        ("from mine import Model\ndef allocate(model, p):\n    return Model(model)\n", "another name"),
    ],
)
def test_rule_that_cannot_stand_alone_says_why(source, place):
    with pytest.raises(PluginError, match="the rule cannot stand alone") as caught:
        rule_source(source, "mine.py", TAKEN)
    assert place in str(caught.value)
