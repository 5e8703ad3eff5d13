"""Evaluation: scores equal the plain loop's, and a failure is a value that costs nobody else anything."""

from __future__ import annotations

import signal
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import profiles

from evolve import evaluation, rule_calls
from evolve.batches import evaluate_candidates, fingerprints
from evolve.candidates import Candidate
from evolve.datasets import Dataset, find_dataset
from evolve.evaluation import Arena, Failure, ModelScores, SearchArena, Task, summarise
from evolve.executors import Serial
from evolve.formats import get_formats
from evolve.profiles import ModelProfile
from evolve.scoring import score_loop
from evolve.synthetic import generate
from evolve.templates import Slot, Template

METRICS = [each.name for each in fields(ModelScores)]
#: The first part of the layers in the narrowest format, the rest in the widest.
EDGE = """
def allocate(model, p):
    return model.where(model.relative_position < p.edge, model.formats[0], model.formats[-1])
"""
REFERENCE = find_dataset("reference")


def task(source: str, *rows: float, names: tuple[str, ...] = ("edge",)) -> Task:
    """One parameter vector a row; without rows, one vector of no parameters."""
    if not rows:
        return Task(source, "rule.py", (), np.empty((1, 0)))
    return Task(source, "rule.py", names, np.array(rows, dtype=np.float64).reshape(len(rows), len(names)))


def body(*lines: str) -> str:
    return "def allocate(model, p):\n" + "".join(f"    {line}\n" for line in lines)


def uniform_model(
    name: str, sensitivity: list[float], layers: int = 1, names: tuple[str, ...] = ("INT8", "FP16", "FP32")
) -> ModelProfile:
    """Equal layers, the loss of each format given."""
    zeros = np.zeros(layers)
    return ModelProfile(
        name=name,
        formats=get_formats(names),
        layer_type=("Linear",) * layers,
        layer_index=np.arange(layers),
        num_params=np.full(layers, 100),
        weight_mean=zeros,
        weight_std=zeros,
        weight_range=zeros,
        activation_range=zeros,
        gradient_sensitivity=zeros,
        sensitivity=np.tile(sensitivity, (layers, 1)),
    )


def same(one: ModelScores | Failure, other: ModelScores | Failure) -> bool:
    """Whether two results are equal to the last bit."""
    if isinstance(one, Failure) or isinstance(other, Failure):
        return one == other
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in METRICS)


@settings(max_examples=50)
@given(
    st.lists(profiles(max_layers=9), min_size=1, max_size=4),
    st.lists(st.floats(-0.1, 1.1), min_size=1, max_size=5),
    st.randoms(use_true_random=False),
)
def test_scores_equal_the_plain_loop_on_each_model(models, edges, shuffler):
    """Models of one format list stand side by side in one call, wherever they are in the list."""
    models += [models[0]]
    shuffler.shuffle(models)
    results = Arena(models).evaluate(task(EDGE, *edges))
    assert len(results) == len(edges)
    for index, model in enumerate(models):
        last = len(model.formats) - 1
        choices = [np.where(model.relative_position < edge, 0, last) for edge in edges]
        expected = score_loop(np.array(choices), model.num_params, model.bits, model.sensitivity)
        for name in METRICS:
            found = [getattr(result, name)[index] for result in results]
            np.testing.assert_allclose(found, getattr(expected, name), rtol=1e-11)


@settings(max_examples=10)
@given(profiles(min_layers=2), st.sampled_from([1, 5, 40, 10**9]))
def test_chunks_change_nothing(model, elements):
    rows = np.linspace(0, 1, 7)
    whole = Arena([model]).evaluate(task(EDGE, *rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "_CHUNK_ELEMENTS", elements)
        parts = Arena([model]).evaluate(task(EDGE, *rows))
    assert len(parts) == 7
    assert all(same(*pair) for pair in zip(whole, parts, strict=True))


def test_no_call_is_larger_than_a_chunk(monkeypatch):
    seen = []
    source = "def allocate(model, p):\n    seen.append(len(p.edge))\n" + EDGE.split("\n", 2)[2]
    model = REFERENCE.train[0]
    monkeypatch.setattr(evaluation, "_CHUNK_ELEMENTS", 3 * model.num_layers * len(model.formats))
    monkeypatch.setattr(evaluation.np, "seen", seen, raising=False)
    Arena([model]).evaluate(task(source.replace("seen", "np.seen"), *np.linspace(0, 1, 8)))
    assert seen == [3, 3, 2]


@pytest.mark.parametrize(
    "returned",
    ["np.zeros(model.num_layers, dtype=int)", "np.zeros((1, model.num_layers), dtype=np.int8)"],
)
def test_a_rule_that_ignores_its_parameters_allocates_for_all_vectors(returned):
    results = Arena(REFERENCE.train).evaluate(task(body(f"return {returned}"), 0.1, 0.2, 0.3))
    (alone,) = Arena(REFERENCE.train).evaluate(task(body(f"return {returned}")))
    assert isinstance(alone, ModelScores)
    assert [same(each, alone) for each in results] == [True] * 3


FAILING = {
    "raises": (body("raise ValueError('no such luck')"), "raised ValueError", "ValueError: no such luck"),
    "raises in numpy": (body("return np.zeros(3) + np.zeros(4)"), "raised ValueError", "broadcast"),
    "leaves": (body("raise SystemExit(3)"), "raised SystemExit", "3"),
    "calls itself": (body("return allocate(model, p)"), "raised RecursionError", "without end"),
    "raises what cannot be shown": (
        body("class Silent(Exception):", "    def __str__(self): raise ValueError", "raise Silent"),
        "raised Silent",
        "Silent",
    ),
    "raises half a character": (body(r"raise ValueError('\udc80')"), "raised ValueError", "ValueError"),
    "too few layers": (body("return np.zeros(3, dtype=int)"), "wrong shape", "found (3,)"),
    "too many axes": (
        body("return np.zeros((1, 1, model.num_layers), dtype=int)"),
        "wrong shape",
        "found (1, 1, 131)",
    ),
    "a number": (body("return 1"), "wrong shape", "found ()"),
    "other vectors": (
        body("return np.zeros((2, model.num_layers), dtype=int)"),
        "wrong shape",
        "found (2, 131)",
    ),
    "floats": (body("return np.zeros(model.num_layers)"), "wrong type", "float64"),
    "truth values": (body("return model.is_type('Linear')"), "wrong type", "bool"),
    "names": (body("return ['FP16'] * model.num_layers"), "wrong type", "<U4"),
    "nothing": (body("pass"), "wrong type", "object"),
    "ragged": (body("return [[0], [0, 1]]"), "wrong type", "inhomogeneous"),
    "an array that is none": (
        body("class Odd:", "    def __array__(self, *a, **k): raise KeyError('odd')", "return Odd()"),
        "wrong type",
        "odd",
    ),
    "index too large": (
        body("return np.full(model.num_layers, len(model.formats))"),
        "wrong format",
        "expected format indices 0 to 4, found 5",
    ),
    "index too small": (
        body("return np.arange(model.num_layers) % 3 - 1"),
        "wrong format",
        "expected format indices 0 to 4, found -1",
    ),
    "unknown format": (
        body("return model.where(model.is_type('Linear'), 'FP16', 'FP99')"),
        "rule broken",
        "expected one of the model's formats INT2, INT4, INT8, FP16, FP32, found 'FP99'",
    ),
    "unknown signal": (body("return model.magic"), "raised AttributeError", "models have no magic"),
    "parameter not declared": (body("return p.missing"), "rule broken", "p.missing, which is not declared"),
    "writes to the model": (
        body("model.relative_position[:] = 0", "return model.select(otherwise='FP16')"),
        "raised ValueError",
        "read-only",
    ),
    "wrong arguments": ("def allocate(model):\n    return 1\n", "raised TypeError", "positional argument"),
    "no rule": ("answer = 42\n", "does not compile", "defines no rule"),
    "no Python": ("def allocate(model, p)\n    return 1\n", "does not compile", "line 1"),
    "fails when loaded": ("import no_such_module\n", "does not compile", "no_such_module"),
}


@pytest.mark.parametrize(("source", "kind", "words"), FAILING.values(), ids=FAILING)
def test_a_failure_is_a_value(source, kind, words):
    arena = Arena(REFERENCE.train)
    (result,) = arena.evaluate(task(source))
    assert isinstance(result, Failure)
    assert result.kind == kind
    assert words in result.reason
    result.reason.encode()  # The journal must be able to hold it.
    (good,) = arena.evaluate(task(EDGE, 0.5))
    assert same(good, Arena(REFERENCE.train).evaluate(task(EDGE, 0.5))[0])


@pytest.mark.parametrize(
    ("level", "read"),
    [
        ("metadata", "model.weight_std"),
        ("metadata", "model.gradient_sensitivity"),
        ("statistics", "model.gradient_sensitivity"),
        ("gradient", "model.sensitivity('FP16')"),
        ("gradient", "model.loss"),
    ],
)
def test_a_signal_above_the_level_fails_with_that_reason(level, read):
    source = body(f"{read}", "return model.select(otherwise='FP16')")
    (result,) = Arena(REFERENCE.train, level).evaluate(task(source))
    assert isinstance(result, Failure)
    assert result.kind == "signal above the level"
    assert f"this run allows {level}" in result.reason
    (allowed,) = Arena(REFERENCE.train, "curves").evaluate(task(source))
    assert isinstance(allowed, ModelScores)


def test_an_endless_loop_is_stopped(monkeypatch):
    monkeypatch.setattr(rule_calls, "TIME_LIMIT", 0.1)
    before = signal.getsignal(signal.SIGALRM)
    arena = Arena(REFERENCE.train)
    (result,) = arena.evaluate(task(body("while True: pass")))
    assert result == Failure("rule broken", "the rule took longer than 0.1 s")
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert isinstance(arena.evaluate(task(EDGE, 0.5))[0], ModelScores)


def test_an_endless_loop_cannot_catch_its_end(monkeypatch):
    monkeypatch.setattr(rule_calls, "TIME_LIMIT", 0.1)
    source = body(
        "import time",
        "end = time.monotonic() + 5",
        "while time.monotonic() < end:",
        "    try: time.sleep(0.01)",
        "    except Exception: pass",
    )
    (result,) = Arena(REFERENCE.train).evaluate(task(source))
    assert result == Failure("rule broken", "the rule took longer than 0.1 s")


def test_a_failure_of_one_vector_costs_the_others_nothing():
    source = EDGE.replace("return", "if (p.edge == 0.5).any(): raise ValueError('half')\n    return", 1)
    edges = (0.1, 0.5, 0.9, 0.5, 0.2)
    arena = Arena([*REFERENCE.train, *generate(1, 0, ["resnet"])])
    results = arena.evaluate(task(source, *edges))
    healthy = arena.evaluate(task(EDGE, *edges))
    for edge, result, expected in zip(edges, results, healthy, strict=True):
        if edge == 0.5:
            assert result == Failure("raised ValueError", "ValueError: half")
        else:
            assert same(result, expected)
    told = arena.behaviours(task(source, *edges))
    assert [told[index] for index in (0, 2, 4)] == [
        arena.behaviours(task(EDGE, edge))[0] for edge in (0.1, 0.9, 0.2)
    ]
    assert told[1] == told[3] not in (told[0], told[2], told[4])


@settings(max_examples=20)
@given(profiles(min_layers=3), st.lists(st.floats(0, 1), min_size=2, max_size=6))
def test_a_fingerprint_depends_on_the_allocation_alone(model, edges):
    arena = Arena([model])
    together = arena.behaviours(task(EDGE, *edges))
    assert together == [arena.behaviours(task(EDGE, edge))[0] for edge in edges]
    masks = [(model.relative_position < edge).tobytes() for edge in edges]
    for first, one in zip(masks, together, strict=True):
        for second, other in zip(masks, together, strict=True):
            # One format makes all masks one allocation.
            assert (one == other) == (first == second or len(model.formats) == 1)


def test_the_fingerprint_of_a_failure_does_not_depend_on_its_neighbours():
    arena = Arena(REFERENCE.train)
    source = body("return np.zeros((7, model.num_layers), dtype=int) + (p.edge.sum() > 9).astype(int)")
    assert arena.behaviours(task(source, 0.1, 0.2, 0.3))[0] == arena.behaviours(task(source, 0.1))[0]


def test_a_reason_names_no_folder_and_no_address():
    """Journals of equal runs are equal, wherever the plugin lies and whatever memory it got."""
    arena = Arena(REFERENCE.train)
    (broken,) = arena.evaluate(Task("def", "/home/me/heuristics/rule.py", (), np.empty((1, 0))))
    assert isinstance(broken, Failure)
    assert broken.reason.startswith("rule.py, line 1: not Python")
    (raised,) = arena.evaluate(task(body("raise ValueError(object())")))
    assert raised == Failure("raised ValueError", "ValueError: <object object at 0x…>")
    (long,) = arena.evaluate(task(body("raise ValueError('x' * 10**6)")))
    assert isinstance(long, Failure)
    assert len(long.reason) < 1000


FRAGILE = Template(
    "fragile",
    'def allocate(model, p):\n    return model.select(otherwise="{{ 1 // 0 if only == "INT8" else only }}")\n'
    '{% if only == "INT4" %}\n    and then\n{% endif %}\n',
    (Slot("only", "format"),),
    file="/somewhere/fragile.py.j2",
)


@pytest.mark.parametrize(
    ("only", "kind", "words"),
    [("INT8", "does not render", "ZeroDivisionError"), ("INT4", "does not compile", "not Python")],
)
def test_a_template_that_does_not_give_python_is_a_failure_too(only, kind, words):
    arena = SearchArena(REFERENCE, "curves")
    candidates = [Candidate("fragile", (("only", each),)) for each in ("FP16", only, "FP32")]
    templates = {"fragile": FRAGILE}
    first, broken, last = evaluate_candidates(candidates, templates, arena, Serial(arena))
    assert (first.status, broken.status, last.status) == ("ok", "failed", "ok")
    assert broken.failure == kind
    assert words in broken.reason
    assert "/somewhere" not in broken.reason
    assert broken.objective == float("-inf")
    marks = fingerprints(candidates, templates, arena)
    assert len({mark for mark, _ in marks}) == 3


def test_the_objective_is_the_mean_share_of_the_optimum():
    """A model that compresses well weighs no more than one that does not."""
    easy = uniform_model("easy", [0.0, 0.0, 0.0])
    hard = uniform_model("hard", [0.9, 0.9, 0.0])
    arena = SearchArena(Dataset("two", (easy, hard), (), ()), "curves")
    (result,) = arena.evaluate(task(body("return model.select(otherwise='FP16')")))
    # Easy: 2 · 2 of the optimum 4 · 2. Hard: 0.1 · 0.1, below the cliff, of the optimum 1 · 2.
    train, valid = arena.summaries(result)
    assert train.fitness == pytest.approx((4 + 0.01) / 2)
    assert train.objective == train.optimum_ratio == pytest.approx((4 / 8 + 0.01 / 2) / 2)
    assert train.worst_ratio == pytest.approx(0.005)
    assert train.compression_ratio == pytest.approx(2)
    assert train.accuracy_retention == pytest.approx((1 + 0.1) / 2)
    assert train.avg_bits == 16
    assert valid is None


def test_train_and_valid_are_kept_apart():
    train, valid = uniform_model("t", [0.0, 0.0, 0.0]), uniform_model("v", [0.9, 0.9, 0.0])
    arena = SearchArena(Dataset("two", (train,), (valid,), ()), "curves")
    (result,) = arena.evaluate(task(body("return model.select(otherwise='FP16')")))
    on_train, on_valid = arena.summaries(result)
    assert on_train.fitness == pytest.approx(4)
    assert on_valid.fitness == pytest.approx(0.01)


def test_one_file_that_is_train_and_valid_is_evaluated_once():
    (profile,) = REFERENCE.train
    arena = SearchArena(Dataset("one", (profile,), (profile,), (), single_file=True), "curves")
    assert arena.profiles == (profile,)
    (result,) = arena.evaluate(task(EDGE, 0.5))
    train, valid = arena.summaries(result)
    assert train == valid
    assert train.fitness == result.fitness[0]


def test_the_arena_of_a_search_holds_no_test_profile():
    arena = SearchArena(REFERENCE, "curves")
    assert [each.name for each in arena.profiles] == [
        each.name for each in (*REFERENCE.train, *REFERENCE.valid)
    ]
    assert not set(REFERENCE.test) & set(arena.profiles)


def test_where_even_the_optimum_is_nothing_the_share_is_whole():
    """131 layers that retain a ten-thousandth each: no float is as small as what is left."""
    hopeless = uniform_model("hopeless", [0.9999, 0.9999, 0.9999], layers=131)
    arena = Arena([hopeless])
    (result,) = arena.evaluate(task(EDGE, 0.5))
    assert isinstance(result, ModelScores)
    assert summarise(result, arena.optimum_fitness, slice(None)).objective == 1.0


def test_one_format_leaves_no_choice():
    arena = Arena([uniform_model("one", [0.1], 3, ("INT8",))])
    (result,) = arena.evaluate(task(EDGE, 0.5))
    assert result.fitness[0] == pytest.approx(arena.optimum_fitness[0])
    assert result.fitness[0] == pytest.approx(0.1 * 0.9**3)


def test_the_optimum_of_a_model_is_computed_once_for_all_arenas(monkeypatch):
    """By its content: an equal model from another file is the same one, a changed one is not."""
    models, again, others = generate(3, 77), generate(3, 77), generate(2, 78)
    computed = []
    real = evaluation.optimum

    def counting(*tables):
        computed.append(tables)
        return real(*tables)

    monkeypatch.setattr(evaluation, "optimum", counting)
    evaluation.optimum_of.cache_clear()
    first = Arena(models).optima
    assert len(computed) == 3
    assert SearchArena(Dataset("x", again, models, ()), "curves").optima[:3] == first
    assert [id(each) for each in Arena(again).optima] == [id(each) for each in first]
    assert len(computed) == 3
    assert (Arena(others).optimum_fitness > 0).all()
    assert len(computed) == 5
