"""What the tests of the command line share: its answers, and what a refusal is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evolve.datasets import find_dataset

REFERENCE = find_dataset("reference")
#: What scripts may rely on in every result.
RESULT = {
    *("heuristic", "dataset", "split", "compression_ratio", "accuracy_retention"),
    *("avg_bits", "fitness", "optimum", "optimum_ratio"),
}
TINY = ("--generations", "2", "--population", "4", "--start-from", "uniform_fp16,sensitivity_threshold")
QUICK = (*TINY, "--no-figures")
BROKEN = "from evolve.heuristics import heuristic\n\ndef allocate(model, p)\n    return 1\n"


@dataclass(frozen=True)
class Answer:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.status == 0, self.err
        return json.loads(self.out)


Evolve = Callable[..., Answer]


def tree(folder: Path) -> dict[str, bytes | None]:
    return {
        str(each.relative_to(folder)): each.read_bytes() if each.is_file() else None
        for each in folder.rglob("*")
    }


def assert_refused(answer: Answer, *words: str) -> None:
    """Check for exit status 2 and one message, without a traceback, that says these words."""
    assert answer.status == 2
    assert answer.out == ""
    assert answer.err.lower().count("error:") == 1
    assert "Traceback" not in answer.err
    assert "internal" not in answer.err
    for word in words:
        assert word in answer.err
