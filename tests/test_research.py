"""The guide for researchers, followed to the letter with small numbers."""

from __future__ import annotations

import json
import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest

from evolve.benchmarking import Plan, Setting
from evolve.cli import main
from evolve.plugins import load_catalogue
from evolve.setup import prepare_run

PAGE = (Path(__file__).parent.parent / "docs" / "research.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r"`(heuristics/[a-z_.0-9]+)`:\n\n```\w+\n(.*?)```", PAGE, re.DOTALL))
COMMANDS = [
    line for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) for line in block.strip().splitlines()
]
#: What the page says, and what is enough to see that it works.
SMALLER = {
    "--generations 20": "--generations 3",
    "--seeds 20": "--seeds 2",
    "--evaluations 2000": "--evaluations 50",
    "--datasets suite": "--datasets reference --no-figures",
    "--workers 2 --name two-limits": "--name two-limits",
    "--workers 2 --name recent": "--name recent",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with the page's files, shared by its commands."""
    found = tmp_path_factory.mktemp("research")
    (found / "heuristics").mkdir()
    for name, text in FILES.items():
        (found / name).write_text(text, encoding="utf-8")
    return found


def call(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "evolve"]
    monkeypatch.setattr(sys, "argv", words[2:])
    with pytest.raises(SystemExit) as leaving:
        main()
    assert leaving.value.code == 0, command


def test_the_page_has_a_file_of_each_kind(folder, monkeypatch):
    monkeypatch.chdir(folder)
    catalogue = load_catalogue()
    assert catalogue.broken == ()
    assert list(catalogue.operators) == ["weigh"]
    assert list(catalogue.strategies) == ["recent"]
    assert catalogue.get("strict_ends").template is catalogue.get("two_limits").template


def test_the_commands_work_one_after_the_other(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert len(COMMANDS) == 7
    for command in COMMANDS:
        for word, smaller in SMALLER.items():
            command = command.replace(word, smaller)
        call(command, monkeypatch)
    told = capsys.readouterr().out
    assert "weigh: good" in told
    assert "recent: good" in told
    for name in ("weigh", "two-limits", "recent"):
        page = (folder / "reports" / f"bench-{name}" / "bench.md").read_text()
        assert "against the others" in page
        assert "p, Holm" in page
    page = (folder / "reports" / "bench-weigh" / "bench.md").read_text()
    assert "`default-weigh-4`" in page
    # The page reproduces itself by flags, without a file.
    assert "--operators default --operators default,weigh=4 --seeds 2" in page
    call("python -m evolve verify with-weigh", monkeypatch)
    call("python -m evolve report with-weigh --json --no-figures", monkeypatch)
    told = json.loads(capsys.readouterr().out.split("every number holds\n")[1])
    assert "weigh" in {each["operator"] for each in told["operators"]}


def test_the_settings_of_the_file_are_settings(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (block,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    values = tomllib.loads(block)
    settings = tuple(Setting(*each) for each in values.pop("settings").items())
    plan = Plan("x", settings, 1, 10, values | {"datasets": "reference"})
    for setting in settings:
        prepare_run(plan.config(setting, 0))
    assert plan.config(settings[2], 0).operators["structure"] == 0.0


def test_modules_and_names_the_page_speaks_of_exist():
    root = Path(__file__).parent.parent
    for name in re.findall(r"`(evolve/[a-z_/]+\.py|evolve/[a-z]+/)`", PAGE):
        assert (root / name).exists(), name
