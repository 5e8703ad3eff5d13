"""The commands of the page on exporting run; its code is run by onnxruntime's tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from export_cases import llama

from evolve.allocations import save_allocation
from evolve.cli import evolve
from evolve.exporters import TARGETS

PAGE = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^python -m evolve (export .*)$", PAGE, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_run(command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "--architecture" in command:
        pytest.importorskip("gguf")
    # The layers of a language model of torch are in no ONNX model here.
    command = command.replace(" --network model.onnx", "")
    monkeypatch.chdir(tmp_path)
    save_allocation(llama(["INT4_G128", "INT8_G128"]), "allocation.json")
    done = CliRunner().invoke(evolve, command.split())
    assert done.exit_code == 0, done.exception
    assert done.stdout


def test_every_target_is_in_the_table() -> None:
    for target in TARGETS:
        assert f"\n| `{target}` | " in PAGE
        assert f"--to {target}" in PAGE or f",{target}" in PAGE or target == "llm-compressor"
