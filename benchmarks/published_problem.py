"""What the search finds on the published problem, over seeds, beside its two ablations.

    python benchmarks/published_problem.py [--seeds 20] [--write README.md]

The default run is compared with the mutation of parameters alone and with random search, all
with the same number of candidates. ``--write`` puts the table between the markers of a file.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

from pages import write_between

from evolve.configuration import RunConfig
from evolve.engine import search
from evolve.results import evaluate_rules
from evolve.setup import prepare_run
from evolve.store import create_run

SETTINGS = {
    "default (structure and parameters)": {},
    "parameter mutation only": {"operators": {"parameters": 1.0}},
    "random search": {"strategy": "random"},
}


def shares_of_optimum(seed: int, settings: dict[str, object], folder: Path) -> tuple[dict[str, float], int]:
    """Run one search; return the champion's share of the optimum by split, and the evaluations spent."""
    setup = prepare_run(RunConfig(seed=seed, **settings))
    outcome = search(setup, create_run(f"seed-{seed}", setup.resolved(), folder))
    champion = outcome.champion.candidate
    rules = {"champion": (champion, setup.problem.templates[champion.template])}
    shares = {each.split: each.optimum_ratio for each in evaluate_rules(rules, setup.dataset)}
    return shares, len(outcome.scored)


def table(seeds: int) -> str:
    """Return the comparison as a markdown table."""
    lines = [
        f"Share of the proven optimum, median and worst of seeds 0 to {seeds - 1}; test selects nothing.",
        "",
        "| search | train | valid | test | runs with ≥ 99 % on train and valid | evaluations |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for label, settings in SETTINGS.items():
        with tempfile.TemporaryDirectory() as folder:
            found = [shares_of_optimum(seed, settings, Path(folder)) for seed in range(seeds)]
        cells = [
            f"{statistics.median(values):.1%} / {min(values):.1%}"
            for values in ([shares[split] for shares, _ in found] for split in ("train", "valid", "test"))
        ]
        good = sum(min(shares["train"], shares["valid"]) >= 0.99 for shares, _ in found)
        spent = statistics.median(count for _, count in found)
        lines.append(f"| {label} | {' | '.join(cells)} | {good} of {seeds} | {spent:.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Print the table, and put it into a file if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    text = table(arguments.seeds)
    print(text)
    if arguments.write:
        write_between(arguments.write, "published problem", text)


if __name__ == "__main__":
    main()
