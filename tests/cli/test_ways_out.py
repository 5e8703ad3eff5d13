"""How the command line ends by a fault, an interrupt or a lost reader, and what it shows on the way."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from command_line import QUICK, assert_refused

from evolve import plugins
from evolve.cli import main


def test_a_fault_of_ours_is_one_message_too(evolve, monkeypatch):
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(plugins, "load_catalogue", fail)
    answer = evolve("heuristics", "list")
    assert answer.status == 1
    assert answer.err == ("internal error: ZeroDivisionError: oops. Set EVOLVE_TRACEBACK=1 to see where.\n")
    monkeypatch.setenv("EVOLVE_TRACEBACK", "1")
    monkeypatch.setattr(sys, "argv", ["evolve", "heuristics", "list"])
    with pytest.raises(ZeroDivisionError):
        main()


@pytest.mark.parametrize(
    "arguments",
    [
        ("allocate", "hawqv3", "--rule"),
        ("export", "chosen.json", "--to", "torchao", "--output"),
        ("export", "chosen.json", "--to", "onnxruntime", "--network"),
    ],
)
def test_a_name_that_is_too_long_is_the_users_fault(evolve, arguments):
    assert evolve("allocate", "hawqv3", "--output", "chosen.json").status == 0
    assert_refused(evolve(*arguments, "x" * 300), "too long", "xxx")


def test_an_interrupt_is_130(evolve, monkeypatch):
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(plugins, "load_catalogue", interrupt)
    answer = evolve("heuristics", "list")
    assert answer.status == 130
    assert answer.err.strip() == "interrupted"


def test_a_reader_that_has_gone_is_no_fault(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "evolve", "heuristics", "list"],
        cwd=tmp_path,
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writing)
    assert done.returncode == 1
    assert done.stderr == ""


def test_progress_is_live_on_a_terminal(evolve, monkeypatch):
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    with os.fdopen(slave, "w", encoding="utf-8") as terminal:
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setattr(sys, "stderr", terminal)
        answer = evolve("run", *QUICK)
        terminal.flush()
        shown = os.read(master, 100_000).decode()
    os.close(master)
    assert answer.status == 0
    assert "2/2" in shown
    for word in ("best", "median", "evaluations/s"):
        assert word in shown
    assert "generation 2/2  best" not in shown
