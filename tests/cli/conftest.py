"""The command line in a working directory of its own, empty or with a finished run."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from command_line import QUICK, Answer, Evolve

from evolve.cli import main


@pytest.fixture
def evolve(tmp_path, monkeypatch, capsys) -> Evolve:
    """The command line in an empty working directory."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["evolve", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as leaving:
            main()
        written = capsys.readouterr()
        return Answer(leaving.value.code, written.out, written.err)

    return call


@pytest.fixture(scope="session")
def finished_folder(tmp_path_factory) -> Path:
    """A working directory with a finished run ``one``."""
    folder = tmp_path_factory.mktemp("finished")
    before = Path.cwd(), sys.argv
    os.chdir(folder)
    sys.argv = ["evolve", "run", *QUICK, "--name", "one"]
    try:
        with pytest.raises(SystemExit) as leaving:
            main()
    finally:
        os.chdir(before[0])
        sys.argv = before[1]
    assert leaving.value.code == 0
    return folder


@pytest.fixture
def one(evolve, finished_folder) -> Evolve:
    """The command line in a copy of that working directory."""
    shutil.copytree(finished_folder, Path.cwd(), dirs_exist_ok=True)
    return evolve
