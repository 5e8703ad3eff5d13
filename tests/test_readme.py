"""The README's two commands are what the gate runs, and its links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [block.strip() for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)]


def test_the_gate_runs_the_second_command() -> None:
    gate = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert COMMANDS[1] == gate.strip().splitlines()[-1]


def test_the_first_command_sets_up_and_runs_the_main_job() -> None:
    assert COMMANDS[0].startswith("python3 -m venv .venv && .venv/bin/pip install")
    assert COMMANDS[0].endswith("python -m evolve run --generations 6")


@pytest.mark.parametrize(
    "page", sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")]), ids=lambda each: each.name
)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target
