"""How a run is made again: the command, the versions and the hashes."""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
from dataclasses import dataclass, fields
from importlib import metadata
from pathlib import Path
from typing import Any

from evolve import __version__
from evolve.configuration import RunConfig
from evolve.setup import Setup
from evolve.store import RunStore
from evolve.verdicts.control import planned_control

_LIBRARIES = ("numpy", "scipy", "deap", "jinja2")


@dataclass(frozen=True)
class Reproduction:
    """How the run is made again, and how to see that it is the same.

    Attributes:
        command: What to type.
        elsewhere: Whether the command names the data set only by the last part of its path.
        versions: (name, version) of what the run was made with.
        hashes: (what, SHA-256) of what went in, and of the journal that came out.
    """

    command: str
    elsewhere: bool
    versions: tuple[tuple[str, str], ...]
    hashes: tuple[tuple[str, str], ...]


def reproduction(store: RunStore, setup: Setup) -> Reproduction:
    """Collect how a run is made again; names neither the run nor a path of this machine."""
    hashes = setup.resolved()["hashes"]
    return Reproduction(
        command=run_command(setup.config) + (" --control" if _has_control(store) else ""),
        elsewhere=_is_absolute(setup.config.datasets),
        versions=_versions(store),
        hashes=(
            ("data set", hashes["datasets"]),
            ("seed heuristics and code templates", hashes["heuristics"]),
            *(("operators and strategies from plugins", each) for each in [hashes.get("plugins")] if each),
            ("journal", journal_hash(store)),
        ),
    )


def _has_control(store: RunStore) -> bool:
    kept = planned_control(store)
    snapshot = None if kept is None else kept.snapshot()
    return snapshot is not None and snapshot.finished


def run_command(config: RunConfig) -> str:
    """Return the command of a run: generations and seed, then whatever is not the default."""
    default = RunConfig()
    words = ["python", "-m", "evolve", "run"]
    for name in ("generations", "seed", *(each.name for each in fields(config))):
        flag = f"--{name.replace('_', '-')}"
        value = getattr(config, name)
        if name == "fit":
            words += fit_flag(value) if value != config.predicts else []
        elif flag not in words and (name in ("generations", "seed") or value != getattr(default, name)):
            words += [flag, _argument(name, value)]
    return shlex.join(words)


def fit_flag(fits: bool) -> list[str]:
    """Return the flag that says whether numbers are fitted."""
    return ["--fit" if fits else "--no-fit"]


def _argument(name: str, value: Any) -> str:
    if name == "operators":
        return ",".join(f"{operator}={_weight(weight)}" for operator, weight in value.items())
    if name == "start_from":
        return ",".join(value)
    # Where the data lie on this machine is nobody's business; their hash tells what they are.
    return Path(value).name if name == "datasets" and _is_absolute(value) else str(value)


def _weight(weight: float) -> str:
    return str(int(weight)) if weight == int(weight) else repr(weight)


def _is_absolute(datasets: str) -> bool:
    return Path(datasets).is_absolute()


def _versions(store: RunStore) -> tuple[tuple[str, str], ...]:
    """Return the versions the run was made with: its manifest's, or else those in use now."""
    try:
        manifest = json.loads((store.path / "manifest.json").read_text(encoding="utf-8"))
        python, recorded = str(manifest["python"]), dict(manifest["libraries"])
    except (OSError, KeyError, TypeError, ValueError):
        python, recorded = platform.python_version(), {}
    found = {name: recorded.get(name) or metadata.version(name) for name in _LIBRARIES}
    return (("evolve", store.config().get("version", __version__)), ("Python", python), *found.items())


def journal_hash(store: RunStore) -> str:
    """Return the SHA-256 of the committed part of a run's journal."""
    snapshot = store.snapshot()
    if snapshot is None:
        return hashlib.sha256().hexdigest()
    data = (store.path / "journal.jsonl").read_bytes()
    return hashlib.sha256(data[: snapshot.journal_bytes]).hexdigest()
