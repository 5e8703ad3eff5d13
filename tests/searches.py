"""A search from its configuration, and the files it leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evolve.configuration import RunConfig
from evolve.datasets import find_dataset
from evolve.engine import Outcome, search
from evolve.setup import Setup, prepare_run
from evolve.store import RunStore, create_run

REFERENCE = find_dataset("reference")
SMALL = {"generations": 3, "population": 16}
RESNETS = {"train": ["resnet"], "valid": ["resnet"], "test": ["resnet"]}


def run(
    folder: Path, name: str = "run", *, setup: Setup | None = None, **config: Any
) -> tuple[RunStore, Outcome]:
    setup = setup or prepare_run(RunConfig(**config))
    store = create_run(name, setup.resolved(), folder)
    return store, search(setup, store)


def files(store: RunStore) -> dict[str, bytes]:
    """Everything of a run that equal runs have in common."""
    return {
        each.name: each.read_bytes()
        for each in sorted(store.path.iterdir())
        if each.name not in ("manifest.json", ".lock")
    }
