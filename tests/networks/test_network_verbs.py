"""The verbs `apply` and `check-network`: what they write, print and answer."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from small_networks import trained_mlp
from test_extras import run_without

from evolve.allocations import load_allocation, save_allocation
from evolve.cli import main
from evolve.networks import TorchNetwork, profile_network
from evolve.networks.applying import make_allocation, uniform
from evolve.profile_files import save_profile

MODULE = """
import sys
from copy import deepcopy
sys.path.insert(0, {folder!r})
from small_networks import trained_mlp

def pair():
    return trained_mlp()

def bare():
    model, data = trained_mlp()
    return model, [images for images, _ in data]

def three():
    model, (calibration, held_out) = trained_mlp()
    return model, [calibration], [held_out]

def coarse():
    model, calibration, held_out = deepcopy(three())
    model[0].weight.data[:, 0] = 100  # of a pixel that is never set: all other weights become 0 in INT4
    return model, calibration, held_out
"""
FORMATS = ("INT2_G32", "INT4_G32", "INT8", "FP16", "FP32")


class Shell:
    def __init__(self, monkeypatch, capsys) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        self._monkeypatch.setattr(sys, "argv", ["evolve", *map(str, arguments)])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as leaving:
            main()
        written = self._capsys.readouterr()
        return leaving.value.code, written.out, written.err

    def check(self, *arguments: object) -> dict:
        status, out, err = self("check-network", *arguments, "--json")
        assert status == 0, err
        return json.loads(out)


@pytest.fixture(scope="module")
def profile():
    model, data = trained_mlp()
    return profile_network(TorchNetwork(model, data[:1]), FORMATS, hessian_probes=0)


@pytest.fixture
def shell(tmp_path, monkeypatch, capsys, profile):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("mine.py").write_text(MODULE.format(folder=str(Path(__file__).parent)))
    network = TorchNetwork(*trained_mlp())
    save_profile(profile, "profile.json")
    for name, formats in (
        ("good", uniform(network, "INT4_G32") | {"4": "INT8"}),
        ("bad", uniform(network, "FP16") | {"0": "INT2_G32"}),
        ("unknown", uniform(network, "INT4")),
    ):
        save_allocation(make_allocation(network, formats, name), f"{name}.json")
    text = Path("unknown.json").read_text().replace('"INT4"', '"INT4_G31"')
    Path("unknown.json").write_text(text)
    Path("other.json").write_text(Path("good.json").read_text().replace('"2"', '"two"'))
    champion = Path(__file__).parents[2] / "reports" / "example"
    for name in ("champion.py", "champion.json"):
        Path(name).write_bytes((champion / name).read_bytes())
    yield Shell(monkeypatch, capsys)
    sys.modules.pop("mine", None)


MODEL = ("--model", "mine:three")
PROFILE = ("--profile", "profile.json")


def test_a_good_allocation_is_handed_out_with_what_it_measures(shell):
    found = shell.check("good.json", *MODEL, *PROFILE, "--output", "checked.json")
    assert found["handed_out"] == "allocation"
    assert [each["label"] for each in found["measured"]] == ["allocation", "INT4_G32 everywhere"]
    own, rival = found["measured"]
    assert 0 < own["divergence"]["low"] <= own["divergence"]["estimate"] <= own["divergence"]["high"]
    assert own["on_calibration"] == pytest.approx(own["predicted"], rel=0.5)
    assert own["retention"] == pytest.approx(np.exp(-own["divergence"]["estimate"]))
    assert rival["size_bytes"] <= own["size_bytes"]
    assert found["excess_over_uniform"][0]["estimate"] <= 0
    assert (found["unit"], found["num_units"], found["notes"]) == ("samples", 197, [])
    written = load_allocation("checked.json")
    assert written.formats == load_allocation("good.json").formats
    assert "good; measured on 197 samples: divergence" in written.source
    # Another time most of it is known.
    again = shell.check("good.json", *MODEL, *PROFILE)
    assert again["measured"] == found["measured"]
    assert again["runs"] < found["runs"]
    assert again["cached"] > found["cached"]


def test_what_is_measured_is_what_the_profile_predicts(shell):
    """Without labels the network would pass for an embedding."""
    found = [
        shell.check("good.json", "--model", f"mine:{name}", *PROFILE)["measured"][0]["divergence"]
        for name in ("bare", "pair")
    ]
    assert found[0] == found[1]
    assert shell.check("good.json", "--model", "mine:bare")["measured"][0]["divergence"] != found[0]


def test_a_bad_allocation_is_replaced_with_exit_status_3(shell):
    plain = ("check-network", "bad.json", *MODEL, *PROFILE)
    status, out, err = shell(*plain, "--search", 0, "--output", "checked.json")
    assert status == 3
    assert "the allocation is worse than INT8 everywhere, which takes no more" in err
    assert "handed out: INT8 everywhere" in out
    assert set(load_allocation("checked.json").formats) == {"INT8"}
    assert shell(*plain)[0] == 3
    # A search finds a better one, so that nothing has to be replaced; it begins by itself for an output.
    for words in (("--search", 20), ("--output", "searched.json")):
        status, out, _ = shell(*plain, *words)
        assert status == 0
        assert "handed out: refined" in out
        assert "search 1: " in out


def test_a_network_that_breaks_in_every_format_compared_is_told(shell):
    network = TorchNetwork(*trained_mlp())
    save_allocation(make_allocation(network, uniform(network, "INT4"), "coarse"), "coarse.json")
    status, out, err = shell("profile", "mine:coarse", "--formats", "INT4,INT8", "--output", "narrow.json")
    assert status == 0, err
    words = ("coarse.json", "--model", "mine:coarse", "--profile", "narrow.json")
    status, out, err = shell("check-network", *words)
    assert status == 0
    assert "note: the network is broken at this size: the allocation has a divergence of" in err
    assert "allocate more bits" in err
    assert "handed out: allocation, which breaks the network\n" in out
    assert shell.check(*words)["handed_out_broken"] is True
    status, out, err = shell("check-network", "good.json", *MODEL)
    assert (status, "broken" in err) == (0, False)
    assert "handed out: allocation\n" in out
    assert shell.check("good.json", *MODEL)["handed_out_broken"] is False


@pytest.mark.parametrize("rule", ["champion.py", "champion.json", "uniform_fp16", "gradient_weighted"])
def test_a_rule_stands_where_an_allocation_does(rule, shell):
    budget = ("--budget", "avg_bits=6") if rule == "gradient_weighted" else ()
    found = shell.check(rule, *MODEL, *PROFILE, *budget)
    (own, *_) = found["measured"]
    assert own["avg_bits"] <= (6 if budget else 16)
    status, out, err = shell("apply", rule, *MODEL, *PROFILE, *budget, "--output", "net.pt", "--json")
    assert status == 0, err
    applied = json.loads(out)
    assert applied["formats"] == own["formats"]
    assert applied["avg_bits"] == pytest.approx(own["avg_bits"])
    assert set(torch.load("net.pt")) == set(trained_mlp()[0].state_dict())


def test_apply_for_people(shell):
    status, out, err = shell("apply", "good.json", *MODEL, "--output", "net.pt")
    assert (status, err) == (0, "")
    assert "3 layers" in out
    assert out.endswith("wrote net.pt\n")
    assert shell("apply", "good.json", *MODEL, "--output", "net.pt")[0] == 2
    assert shell("apply", "good.json", *MODEL, "--output", "net.pt", "--overwrite")[0] == 0


def test_an_onnx_network_measures_the_same(shell):
    model, (calibration, held_out) = trained_mlp()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model.eval(),
            (calibration[0],),
            "net.onnx",
            dynamo=False,
            input_names=["x"],
            dynamic_axes={"x": {0: "n"}},
        )
    for name, (images, labels) in (("calibration", calibration), ("held_out", held_out)):
        np.savez(f"{name}.npz", x=images.numpy(), labels=labels.numpy())
    data = ("--data", "held_out.npz")
    found = shell.check("good.json", "--model", "net.onnx", *data, *PROFILE)
    expected = shell.check("good.json", *MODEL, *PROFILE)
    for one, other in zip(found["measured"], expected["measured"], strict=True):
        assert one["accuracy"] == other["accuracy"]
        assert one["divergence"]["estimate"] == pytest.approx(other["divergence"]["estimate"], rel=1e-3)
    searched = shell.check(
        *("bad.json", "--model", "net.onnx", *data, "--calibration", "calibration.npz"),
        *(*PROFILE, "--search", 15, "--output", "searched.json"),
    )
    assert searched["search"]["divergence"] < searched["search"]["start"]
    status, _, err = shell("apply", "searched.json", "--model", "net.onnx", "--output", "out.onnx")
    assert (status, err) == (0, "")
    status, _, err = shell(
        "check-network", "good.json", "--model", "net.onnx", *data, *PROFILE, "--search", 5
    )
    assert status == 2
    assert "--calibration FILE.npz" in err
    same = shell.check("good.json", "--model", "net.onnx", "--data", "calibration.npz", *PROFILE)
    assert same["num_units"] == 200


def test_without_held_out_data_it_says_so(shell):
    found = shell.check("good.json", "--model", "mine:pair", *PROFILE)
    assert any("no held-out data" in each for each in found["notes"])
    assert found["num_units"] == 397


def test_a_search_is_killed_and_goes_on(shell, tmp_path):
    words = ["check-network", "bad.json", *MODEL, *PROFILE, "--search", "12", "--output", "out.json"]
    code = f"""
import os, runpy, sys
from evolve.networks import joint_measuring
measure, left = joint_measuring.measure_weights, [5]
def killing(*arguments):
    left[0] -= 1
    if left[0] < 0:
        os._exit(9)
    return measure(*arguments)
joint_measuring.measure_weights = killing
sys.argv = ["evolve", *{words!r}]
runpy.run_module("evolve", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True)
    assert done.returncode == 9
    assert not Path("out.json").exists()
    cache = Path(".evolve_cache") / "measurements.jsonl"
    assert len(cache.read_text().splitlines()) == 5
    again = shell.check(*words[1:])
    whole = shell.check(*words[1:], "--overwrite", "--cache", "other.jsonl")
    assert again["search"] == whole["search"]
    assert again["measured"] == whole["measured"]
    # Both began with what is measured before any search, and none of it twice.
    assert whole["runs"] - again["runs"] == again["cached"] - whole["cached"] == 5


REFUSED = {
    "another network": (["other.json", *MODEL], ["another network", "two", "own profile"]),
    "an unknown format": (["unknown.json", *MODEL], ["layer 0", "INT4_G31", "INT4_G32"]),
    "no such file": (["none.json", *MODEL], ["none.json", "no such file"]),
    "no allocation": (["profile.json", *MODEL], ["profile.json", "not an allocation", "evolve allocate"]),
    "no such rule": (["nothing", *MODEL, *PROFILE], ["unknown heuristic", "nothing"]),
    "an allocation as a profile": (["good.json", *MODEL, "--profile", "good.json"], ["not a profile"]),
    "a rule alone": (["uniform_fp16", *MODEL], ["--profile PROFILE.json"]),
    "a budget for nothing": (["good.json", *MODEL, "--budget", "avg_bits=3"], ["leave --budget out"]),
    "no such module": (["good.json", "--model", "nowhere:f"], ["no such module", "nowhere"]),
    "no such network": (["good.json", "--model", "nowhere.onnx"], ["nowhere.onnx", "no such file"]),
    "a bad output": (["good.json", *MODEL, "--output", "out.txt"], ["a name that ends in"]),
    "no folder": (["good.json", *MODEL, "--output", "no/{file}"], ["no such folder"]),
    "a long name": (["good.json", *MODEL, "--output", "x" * 300 + "{file}"], ["name too long", "230 bytes"]),
}


@pytest.mark.parametrize("verb", ["apply", "check-network"])
@pytest.mark.parametrize(("arguments", "said"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_refused(verb, arguments, said, shell, tmp_path):
    file = "out.pt" if verb == "apply" else "out.json"
    if "--output" not in arguments:
        arguments = [*arguments, "--output", "{file}"]
    before = sorted(each.name for each in tmp_path.iterdir())
    status, out, err = shell(verb, *(str(each).replace("{file}", file) for each in arguments))
    assert (status, out) == (2, "")
    assert err.count("error:") == 1
    assert all(words in err for words in said), err
    assert sorted(each.name for each in tmp_path.iterdir() if each.name != "__pycache__") == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["good.json", *MODEL, "--search", "5"], ["--profile PROFILE.json"]),
        (["good.json", "--model", "mine:pair", *PROFILE, "--search", "5"], ["held-out loader"]),
        (["good.json", *MODEL, "--data", "x.npz"], ["leave --data out"]),
        (["good.json", *MODEL, "--cache", "mine.py"], ["mine.py", "no cache"]),
        (["good.json", *MODEL, "--output", "unknown.json"], ["exists already", "--overwrite"]),
        (["good.json", *MODEL, "--output", "good.json", "--overwrite"], ["good.json: this file is read"]),
        (["good.json", *MODEL, "--task", "art"], ["unknown task"]),
        (["good.json", *MODEL, "--seed", "-1"], ["--seed", "x>=0"]),
        (["good.json", *MODEL, *PROFILE, "--task", "embedding"], ["another task", "classification"]),
    ],
)
def test_what_only_a_check_may_get_wrong(arguments, said, shell):
    status, out, err = shell("check-network", *arguments)
    assert (status, out) == (2, "")
    assert all(words in err for words in said), err


@pytest.mark.parametrize(
    ("library", "extra", "model"), [("torch", "torch", "mine:three"), ("onnx", "onnx", "net.onnx")]
)
@pytest.mark.parametrize("verb", ["apply", "check-network"])
def test_a_missing_extra_is_named(verb, library, extra, model, shell, tmp_path):
    Path("net.onnx").touch()
    np.savez("x.npz", x=np.zeros(1))
    output = "out.onnx" if extra == "onnx" else "out.pt"
    data = ["--data", "x.npz"] if extra == "onnx" else []
    options = ["--output", output] if verb == "apply" else data
    done = run_without(library, [verb, "good.json", "--model", model, *options], tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("error:") == 1
    assert f"pip install 'evolve-precision[{extra}]'" in done.stderr
