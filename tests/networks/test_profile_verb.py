"""The verb `profile`: what it writes and prints, and what it says about bad input."""

from __future__ import annotations

import fcntl
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from evolve.cli import main
from evolve.errors import NetworkError
from evolve.networks.journal import Journal
from evolve.profile_files import load_profile, save_profile
from evolve.profiles import ModelProfile

MODULE = """
import sys
sys.path.insert(0, {folder!r})
import torch
from small_networks import trained_mlp
from evolve.networks import TorchNetwork

def pair():
    return trained_mlp()

def network():
    return TorchNetwork(*trained_mlp(), name="digits")

def number():
    return 3

def four():
    return 1, 2, 3, 4

def needs():
    import nothing_of_that_name

def breaks():
    raise ValueError("no data today")

def takes(argument):
    return argument

value = 3
"""


class Shell:
    def __init__(self, monkeypatch, capsys) -> None:
        self._monkeypatch, self._capsys = monkeypatch, capsys

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        self._monkeypatch.setattr(sys, "argv", ["evolve", "profile", *map(str, arguments)])
        self._capsys.readouterr()
        with pytest.raises(SystemExit) as leaving:
            main()
        written = self._capsys.readouterr()
        return leaving.value.code, written.out, written.err


@pytest.fixture
def shell(tmp_path, monkeypatch, capsys) -> Shell:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "mine.py").write_text(MODULE.format(folder=str(Path(__file__).parent)))
    yield Shell(monkeypatch, capsys)
    sys.modules.pop("mine", None)


QUICK = ("--formats", "INT4,FP32", "--hessian-probes", "0")


@pytest.mark.parametrize("source", ["mine:pair", "mine.py:network"])
def test_a_profile_is_written(source, shell, tmp_path):
    status, out, err = shell(source, *QUICK, "--output", "one.json", "--json")
    assert status == 0, err
    said = json.loads(out)
    profile = load_profile("one.json")
    assert said["formats"] == ["INT4", "FP32"]
    assert said["name"] == profile.name
    assert said["uniform_loss"] == profile.loss.sum(axis=0).tolist()
    assert "cell 0/6" in err
    assert sorted(each.name for each in tmp_path.iterdir() if each.suffix == ".json") == ["one.json"]


def test_tables_for_people(shell):
    status, out, err = shell("mine:network", *QUICK)
    assert status == 0, err
    assert "digits: 3 layers" in out
    assert "classification" in out
    assert "KL divergence" in out
    assert "wrote digits.json" in out


def test_declared_ties(shell):
    status, out, _ = shell("mine:pair", *QUICK, "--tie", "0,2", "--json")
    assert status == 0
    assert json.loads(out)["tied_layers"] == [["0", "2"]]


def test_an_onnx_model(shell, tmp_path):
    import warnings

    from small_networks import trained_mlp

    model, data = trained_mlp()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (data[0][0],), "mlp.onnx", dynamo=False, input_names=["x"])
    np.savez("data.npz", pixels=data[0][0].numpy(), labels=data[0][1].numpy())
    status, out, err = shell("mlp.onnx", "--data", "data.npz", *QUICK, "--json")
    assert status == 0, err
    assert json.loads(out)["provenance"]["framework"] == "onnx"
    assert shell("mlp.onnx", "--data", "data.npz", *QUICK)[0] == 2


REFUSED = {
    "no form": (["mine"], ["MODULE:FUNCTION", "'mine'"]),
    "no module": (["nowhere:f"], ["no such module", "nowhere", "FILE.py:FUNCTION"]),
    "no file": (["nowhere.py:f"], ["nowhere.py", "no such file"]),
    "no function": (["mine:nothing"], ["no such function", "'nothing'"]),
    "no callable": (["mine:value"], ["not a function", "found 3"]),
    "a number": (["mine:number"], ["returned the wrong thing", "a model and a loader", "int"]),
    "four": (["mine:four"], ["returned the wrong thing", "tuple of 4"]),
    "a missing library": (["mine:needs"], ["nothing_of_that_name", "mine.py, line"]),
    "a failure": (["mine:breaks"], ["ValueError: no data today", "mine.py, line"]),
    "an argument": (["mine:takes"], ["TypeError", "argument"]),
    "data twice": (["mine:pair", "--data", "x.npz"], ["leave --data out"]),
    "a bad task": (["mine:pair", "--task", "regresion"], ["unknown task", "regression"]),
    "a bad format": (["mine:pair", "--formats", "INT4,INT9"], ["INT9"]),
    "a bad tie": (["mine:pair", "--tie", "0,7"], ["no such layer", "'7'"]),
    "a bad output": (["mine:pair", "--output", "one.txt"], [".json.gz"]),
    "no folder": (["mine:pair", "--output", "no/one.json"], ["no such folder"]),
    "a long name": (
        ["mine:pair", "--output", "x" * 300 + ".json"],
        ["name too long", "230 bytes, found 305"],
    ),
    "a bad seed": (["mine:pair", "--seed", "-1"], ["--seed", "x>=0"]),
    "bad probes": (["mine:pair", "--hessian-probes", "-1"], ["--hessian-probes", "x>=0"]),
    "no model": (["no.onnx", "--data", "x.npz"], ["no.onnx", "no such file"]),
    "no data": (["bad.onnx"], ["--data FILE.npz"]),
    "no such data": (["bad.onnx", "--data", "x.npz"], ["x.npz", "no such file"]),
    "one array": (["bad.onnx", "--data", "one.npy"], ["numpy.savez"]),
    "bad data": (["bad.onnx", "--data", "mine.py"], ["mine.py", "cannot be read"]),
    "a bad model": (["bad.onnx", "--data", "good.npz"], ["bad.onnx", "cannot be read"]),
    "a bad batch size": (["bad.onnx", "--data", "good.npz", "--batch-size", "0"], ["at least 1"]),
}


@pytest.mark.parametrize(("arguments", "said"), REFUSED.values(), ids=REFUSED)
def test_bad_input_is_refused(arguments, said, shell, tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    np.save("one.npy", np.ones(3))
    np.savez("good.npz", x=np.ones((2, 3)))
    before = sorted(each.name for each in tmp_path.iterdir())
    status, out, err = shell(*arguments)
    assert (status, out) == (2, "")
    assert err.lower().count("error:") - err.count("ValueError:") - err.count("TypeError:") == 1 or (
        "ModuleNotFoundError" in err
    )
    assert "Traceback" not in err
    assert all(words in err for words in said), err
    assert sorted(each.name for each in tmp_path.iterdir() if each.name != "__pycache__") == before


def test_two_processes_never_work_on_one_profile(shell, monkeypatch):
    target, journal = Path("one.json"), Path("one.json.journal")
    held = Journal(journal, {"profile": "of another process"}, resume=False)
    before = journal.read_bytes()
    for resume in ((), ("--resume",)):
        status, out, err = shell("mine:pair", *QUICK, "--output", target, *resume)
        assert (status, out) == (2, "")
        assert "one.json.journal: another process works on this profile" in err
    assert journal.read_bytes() == before
    held.close()
    status, _, err = shell("mine:pair", *QUICK, "--output", target, "--resume")
    assert "is of something else" in err
    journal.unlink()

    def finished_by_another(profile: ModelProfile, path: Path) -> None:
        save_profile(profile, path)
        journal.unlink()

    monkeypatch.setattr("evolve.profile_files.save_profile", finished_by_another)
    assert shell("mine:pair", *QUICK, "--output", target)[0] == 0
    assert not journal.exists()


def test_a_journal_that_its_writer_has_just_removed_is_begun_anew(tmp_path, monkeypatch):
    file, lock = tmp_path / "journal", fcntl.flock
    file.touch()

    def too_late(opened: object, how: int) -> None:
        lock(opened, how)
        monkeypatch.undo()
        file.unlink()

    monkeypatch.setattr(fcntl, "flock", too_late)
    journal = Journal(file, {"profile": "mine"}, resume=True)
    assert file.read_text() == '{"profile": "mine"}\n'
    with pytest.raises(NetworkError, match="another process"):
        Journal(file, {"profile": "mine"}, resume=True)
    journal.close()
    Journal(file, {"profile": "mine"}, resume=True).close()


def test_nothing_is_overwritten(shell):
    assert shell("mine:pair", *QUICK, "--output", "one.json")[0] == 0
    status, _, err = shell("mine:pair", *QUICK, "--output", "one.json")
    assert status == 2
    assert "exists already" in err
