"""The standalone champion does exactly what the rule did here, and needs nothing of ours."""

from __future__ import annotations

import ast
import json
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from evolve.candidates import Candidate
from evolve.errors import PluginError
from evolve.evaluation import Failure
from evolve.evaluation import allocate as run_rule
from evolve.formats import PrecisionFormat, known_formats
from evolve.grammar import seeded, vocabulary
from evolve.heuristics import Parameter, linear
from evolve.plugins import load_catalogue
from evolve.profile_files import load_profile, profile_to_json
from evolve.profiles import LAYER_TYPES, ModelProfile
from evolve.python_source import compile_rule
from evolve.reports.champion import standalone_source
from evolve.signals import PER_LAYER_SIGNALS
from evolve.templates import Template
from evolve.variation import mutate_structure, newcomer
from evolve.views import ModelView

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = [
    load_profile(ROOT / "datasets" / "reference" / f"{name}.json") for name in ("train", "valid", "test")
]
CATALOGUE = load_catalogue([ROOT / "heuristics"])
NEEDED = ("INT4", "INT8", "FP16", "FP32")
CUSTOM = (PrecisionFormat("INT4_GROUP32", 4.5, "integer"), PrecisionFormat("TERNARY", 1.58, "codebook"))
#: Runs a file as a program in an interpreter that cannot import this package.
ALONE = """
import runpy, sys
sys.modules["evolve"] = None
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def standalone(candidate: Candidate, template: Template, **facts: object) -> str:
    return standalone_source(candidate, template, title="A rule", facts=facts)


def plugin(source: str, *parameters: Parameter) -> tuple[Candidate, Template]:
    """A rule written as a Python plugin."""
    template = Template("mine", source, (), parameters, "mine.py", "function")
    return Candidate("mine", (), tuple((each.name, each.default) for each in parameters)), template


def module(text: str) -> dict[str, object]:
    namespace: dict[str, object] = {"__name__": "champion"}
    exec(compile(text, "champion.py", "exec", dont_inherit=True), namespace)
    return namespace


def expected(candidate: Candidate, template: Template, profile: ModelProfile) -> list[str]:
    """What the rule allocates within this package."""
    names = tuple(name for name, _ in candidate.parameters)
    values = np.array([[value for _, value in candidate.parameters]])
    rule = compile_rule(template.source(candidate))
    found = run_rule(rule, ModelView([profile]), names, values)
    assert not isinstance(found, Failure), found
    return [profile.formats[choice].name for choice in found[0]]


def run_alone(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-W", "error", "-c", ALONE, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def random_profile(rng: np.random.Generator) -> ModelProfile:
    """Layers in any order, ties in all signals, other formats beside the needed ones."""
    L = int(rng.integers(1, 150))
    formats = [each for each in (*known_formats(), *CUSTOM) if each.name in NEEDED or rng.random() < 0.3]
    formats.sort(key=lambda each: each.bits)
    digits = int(rng.integers(1, 8))
    return ModelProfile(
        name="random",
        formats=tuple(formats),
        layer_type=tuple(rng.choice(LAYER_TYPES, L)),
        layer_index=rng.permutation(L),
        num_params=(10 ** rng.integers(0, 9, L) * rng.integers(1, 9, L)),
        weight_mean=rng.normal(size=L).round(digits),
        weight_std=rng.random(L).round(digits),
        weight_range=3 * rng.random(L).round(digits),
        activation_range=9 * rng.random(L).round(digits),
        gradient_sensitivity=rng.random(L).round(digits),
        sensitivity=np.minimum(rng.random((L, len(formats))).round(digits) ** 4, 0.999),
    )


def json_out_of_order(profile: ModelProfile, rng: np.random.Generator) -> dict[str, object]:
    """The profile with its formats listed in any order that keeps equal ones in theirs."""
    data = profile_to_json(profile)
    bits = sorted({each.bits for each in profile.formats}, key=lambda _: rng.random())
    order = [at for each in bits for at, named in enumerate(profile.formats) if named.bits == each]
    data["formats"] = [data["formats"][at] for at in order]
    for layer in data["layers"]:
        layer["sensitivity"] = [layer["sensitivity"][at] for at in order]
    return data


@pytest.mark.parametrize("name", CATALOGUE.heuristics)
def test_shipped_heuristic_allocates_as_here(name):
    heuristic = CATALOGUE.heuristics[name]
    alone = module(standalone(heuristic.candidate, heuristic.template))
    rng = np.random.default_rng(0)
    for profile in (*REFERENCE, *(random_profile(rng) for _ in range(3))):
        wanted = expected(heuristic.candidate, heuristic.template, profile)
        assert alone["allocate"](json_out_of_order(profile, rng)) == wanted


def random_candidates(count: int) -> list[Candidate]:
    words = vocabulary(NEEDED, "curves")
    fillable = [each for each in CATALOGUE.templates.values() if each.slots]
    found = []
    with seeded() as seed:
        seed(5)
        for _ in range(count):
            candidate, _ = newcomer(random.choice(fillable), CATALOGUE.templates, words)
            for _ in range(random.randint(0, 6)):
                candidate, _ = mutate_structure(candidate, CATALOGUE.templates[candidate.template], words)
            found.append(candidate)
    return found


def test_random_candidates_allocate_as_here():
    rng = np.random.default_rng(1)
    for candidate in random_candidates(150):
        template = CATALOGUE.templates[candidate.template]
        alone = module(standalone(candidate, template))
        for profile in (random_profile(rng), random_profile(rng)):
            wanted = expected(candidate, template, profile)
            assert alone["allocate"](json_out_of_order(profile, rng)) == wanted, template.source(candidate)


@pytest.mark.parametrize("name", ["wider_fp16_zone", "position_aware", "greedy_sensitivity"])
def test_runs_without_this_package(name, tmp_path):
    heuristic = CATALOGUE.get(name)
    file = tmp_path / "champion.py"
    file.write_text(standalone(heuristic.candidate, heuristic.template), encoding="utf-8")
    profile = ROOT / "datasets" / "reference" / "test.json"
    found = run_alone(file, profile, "--json")
    assert (found.returncode, found.stderr) == (0, "")
    assert json.loads(found.stdout) == expected(heuristic.candidate, heuristic.template, REFERENCE[2])


def test_prints_a_table(tmp_path):
    heuristic = CATALOGUE.get("layer_type_aware")
    file = tmp_path / "champion.py"
    file.write_text(standalone(heuristic.candidate, heuristic.template), encoding="utf-8")
    profile = profile_to_json(REFERENCE[2])
    (tmp_path / "profile.json").write_text(json.dumps(profile), encoding="utf-8")
    lines = run_alone(file, tmp_path / "profile.json").stdout.splitlines()
    assert lines[:2] == ["layer  type        format", "    0  Conv        INT8"]
    assert lines[-1] == "   26  Classifier  FP16"
    assert len(lines) == 28


EVERY_MEMBER = '''
"""Uses all that a model view has."""

import numpy as np

from evolve.heuristics import ModelView, ParameterValues, heuristic, linear
from evolve.views import ChoiceArray


@heuristic(parameters=[linear("share", 0.5, 0.0, 1.0)])
def allocate(model: ModelView, p: ParameterValues) -> ChoiceArray:
    """Add up whatever there is."""
    score = {signals}
    score = score + model.rank(score) + model.share_below(model.num_params, score)
    score = score + model.running_total(model.num_params, score) / model.total(model.num_params)
    score = score / model.largest(score) + model.mean(score) / (1 + model.quantile(score, p.share))
    conv = model.is_type("Conv", "Linear") & (model.fraction(model.is_type("Conv")) < p.share)
    score = score * model.by_type(p.share, Conv=2.0, LayerNorm=p.share / 2)
    cheap = model.cheapest(np.log(model.bits) + p.share * score * model.loss)
    cheap = model.where(model.bits_of(cheap) > 8, cheap, model.narrowest(model.loss < p.share))
    spent = model.pick(model.loss + model.bits, cheap) > len(model.formats) + model.offsets[-1] % 2
    small = model.sensitivity("FP16") < np.arange(model.num_layers) / model.num_layers * p.share
    return model.select((conv, cheap), (small & spent, "INT8"), otherwise="FP32")
'''


def test_every_member_of_a_view_is_there():
    reads = " + ".join(f"model.{name} / (1 + model.largest(model.{name}))" for name in PER_LAYER_SIGNALS)
    source = EVERY_MEMBER.replace("{signals}", reads).lstrip()
    used = {node.attr for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}
    # The level is a setting of a run and has no meaning in a file.
    public = {name for name in (*dir(ModelView([REFERENCE[2]])), *PER_LAYER_SIGNALS) if name[0] != "_"}
    assert public - {"level"} <= used
    candidate, template = plugin(source, linear("share", 0.5, 0.0, 1.0))
    alone = module(standalone(candidate, template))
    rng = np.random.default_rng(2)
    for _ in range(20):
        profile = random_profile(rng)
        assert alone["allocate"](json_out_of_order(profile, rng)) == expected(candidate, template, profile)


def test_only_what_the_rule_uses_is_there():
    text = standalone(
        *plugin("def allocate(model, p):\n    return model.where(model.depth > 9, 'FP16', 'INT8')\n")
    )
    for absent in (
        "select",
        "sensitivity",
        "num_params",
        "layer_index",
        "LAYER_TYPES",
        "PARAMETERS",
        "SimpleNamespace",
    ):
        assert absent not in text
    assert "import numpy as np" in text
    assert "evolve" not in text


def test_rule_that_reads_a_setting_of_the_run_cannot_stand_alone():
    source = "def allocate(model, p):\n    return model.where(model.level == 'curves', 'FP16', 'INT8')\n"
    with pytest.raises(PluginError, match=r"mine.py, model.level: the rule cannot stand alone"):
        standalone(*plugin(source))


def with_layer(change: Mapping[str, object]) -> str:
    data = profile_to_json(REFERENCE[2])
    data["layers"][3] |= change
    return json.dumps(data)


def with_formats(*formats: object) -> str:
    return json.dumps(profile_to_json(REFERENCE[2]) | {"formats": formats})


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "No such file or directory"),
        ("{", "is not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"),
        ("[]", "layers: expected a list that is not empty"),
        ('{"layers": [1], "formats": ["FP16"]}', "layer 0: expected an object"),
        (with_formats(), "formats: expected a list that is not empty"),
        (with_formats("INT1"), "formats: INT1 is unknown; describe it as an object with name, bits and kind"),
        (with_formats("INT4", "INT4"), "formats: INT4 is given twice"),
        (with_formats({"name": "X"}), "formats: X: bits: expected a positive number, found None"),
        (
            with_formats("INT2", "INT4", "INT8", "INT6", "FP32"),
            "formats: the rule needs FP16, found INT2, INT4, INT6, INT8, FP32",
        ),
        (
            with_layer({"layer_type": "Convolution"}),
            f"layer 3: type 'Convolution' is none of {', '.join(LAYER_TYPES)}",
        ),
        (with_layer({"layer_idx": 2}), "layer_idx: expected 0, 1, 2, ..., each in one layer"),
        (with_layer({"layer_idx": "2"}), "layer 3: layer_idx: expected a number, found '2'"),
        (with_layer({"sensitivity": [0]}), "layer 3: sensitivity: expected 5 numbers, one for each format"),
        (with_layer({"sensitivity": [1] * 5}), "layer 3: sensitivity: expected numbers in [0, 1), found 1"),
    ],
)
def test_bad_profile_ends_in_one_line(content, problem, tmp_path, capsys, monkeypatch):
    heuristic = CATALOGUE.get("wider_fp16_zone")
    alone = module(standalone(heuristic.candidate, heuristic.template))
    file = tmp_path / "profile.json"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["champion.py", str(file)])
    assert alone["main"]() == 2
    assert capsys.readouterr() == ("", f"{file}: {problem}\n")


def test_exit_status_reaches_the_shell(tmp_path):
    file = tmp_path / "champion.py"
    file.write_text(
        standalone(*plugin("def allocate(model, p):\n    return model.formats\n")), encoding="utf-8"
    )
    found = run_alone(file, tmp_path / "missing.json")
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == f"{tmp_path / 'missing.json'}: No such file or directory\n"


def test_text_is_formatted_and_the_same_each_time(tmp_path):
    candidates = [(each.candidate, each.template) for each in CATALOGUE.heuristics.values()]
    for number, (candidate, template) in enumerate(candidates):
        text = standalone(candidate, template, mean=0.5)
        assert text == standalone(candidate, template, mean=0.5)
        # The rule's own lines stay as they are, and tables of numbers by type are filled.
        if max(map(len, text.splitlines())) <= 88 and "by_type(\n" not in text:
            (tmp_path / f"champion_{number}.py").write_text(text, encoding="utf-8")
    assert len(list(tmp_path.iterdir())) > 10
    for arguments in (["format", "--check"], ["format", "--check", "--line-length=110"], ["check"]):
        command = [sys.executable, "-m", "ruff", *arguments, "--isolated", "--no-cache", str(tmp_path)]
        found = subprocess.run(command, capture_output=True, text=True, check=False)
        assert found.returncode == 0, found.stdout


def test_docstring():
    heuristic = CATALOGUE.get("sensitivity_threshold")
    facts = {"Fitness on test": 3.884312, "Models": 3, "Quote": 'a """ and a \\ in it'}
    text = standalone_source(heuristic.candidate, heuristic.template, title="A rule.", facts=facts)
    found = ast.get_docstring(ast.parse(text), clean=False)
    assert (
        found
        == '''A rule.

Layers whose FP16 sensitivity is above 0.0005 go to FP32. All others go to FP16.

Needs numpy. Use it as a program, or import its function ``allocate``:

    python champion.py profile.json
    python champion.py profile.json --json

The profile of a model is a JSON object with two lists. `formats` has the number formats
to choose from: names like FP16, or objects with name, bits (per weight) and kind.
`layers` has an object for each layer, of which this rule reads:

- sensitivity: a list, one for each format: the share of accuracy lost with this layer
  alone in it

What it was measured to do:

- Fitness on test: 3.884
- Models: 3
- Quote: a """ and a \\ in it
'''
    )
