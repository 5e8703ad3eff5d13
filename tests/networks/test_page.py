"""The page for people with a network of their own, followed to the letter in an empty folder."""

from __future__ import annotations

import json
import re
import shlex
import sys
import warnings
from pathlib import Path

import pytest
import torch

from evolve.allocations import load_allocation
from evolve.cli import main
from evolve.exporters import Options, find_target

PAGE = (Path(__file__).parents[2] / "docs" / "networks.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(sh|python)\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = [[line for line in text.splitlines() if line] for kind, text in BLOCKS if kind == "sh"]
MODEL, LOADING, TO_ONNX, IN_PYTHON = (text for kind, text in BLOCKS if kind == "python")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A working directory with the page's files, shared by its commands."""
    found = tmp_path_factory.mktemp("networks")
    (found / "my_model.py").write_text(MODEL, encoding="utf-8")
    (found / "to_onnx.py").write_text(TO_ONNX, encoding="utf-8")
    return found


@pytest.fixture(autouse=True)
def there(folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    torch.set_num_threads(1)
    yield
    sys.modules.pop("my_model", None)


def call(command: str, monkeypatch) -> None:
    words = shlex.split(command)
    if words[1].endswith(".py"):
        assert words[0] == "python"
        run(Path(words[1]).read_text(encoding="utf-8"))
        return
    assert words[:3] == ["python", "-m", "evolve"]
    monkeypatch.setattr(sys, "argv", words[2:])
    with pytest.raises(SystemExit) as leaving:
        main()
    assert leaving.value.code == 0, command


def run(text: str) -> dict[str, object]:
    names: dict[str, object] = {"__name__": "page"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of torch's older ONNX exporter
        exec(compile(text, "page", "exec"), names)
    return names


def test_five_commands_lead_from_a_model_to_an_export_with_its_measured_loss(monkeypatch, capsys):
    assert len(COMMANDS[0]) == 5
    for command in COMMANDS[0]:
        call(command, monkeypatch)
    told = capsys.readouterr().out
    for words in (
        "predicted",
        "on calibration",
        "accuracy",
        "everywhere",
        "handed out",
        "wrote checked.json",
    ):
        assert words in told
    checked = load_allocation("checked.json")
    assert checked.avg_bits <= 3.5
    measured = float(re.search(r"divergence ([0-9.e-]+), accuracy", checked.source)[1])
    assert 0 < measured < 0.1
    assert all(each.shape is not None for each in checked.layers)
    written = json.loads(Path("torchao.json").read_text())
    assert set(written["_data"]["fqn_to_config"]) == set(checked.names)
    # Nothing had to be rounded: what was measured is what is exported.
    assert find_target("torchao").export(checked, Options()).roundings == ()
    # The network that was written has the accuracy that was measured.
    run(LOADING)
    accuracy = float(re.search(r"accuracy ([0-9.]+)", capsys.readouterr().out)[1])
    assert accuracy == pytest.approx(float(re.search(r"accuracy ([0-9.]+)", checked.source)[1]), abs=1e-4)
    assert accuracy > 0.9


def test_the_other_commands_work_too(monkeypatch, capsys):
    assert [len(block) for block in COMMANDS[1:]] == [1, 2, 1, 5]
    for command in (command for block in COMMANDS[1:] for command in block):
        call(command, monkeypatch)
    assert Path("quantized.onnx").is_file()
    assert {each.suffix for each in Path("checked_report").iterdir()} == {".md", ".svg"}
    before, after = load_allocation("small.json"), load_allocation("refined.json")
    assert after.size_bits <= before.size_bits
    capsys.readouterr()
    run(IN_PYTHON)
    assert "Interval" in capsys.readouterr().out
