"""Repeats the searches for the rules that ship as discovered, one an information level.

    python benchmarks/discover.py [LEVEL ...] [--workers 2] [--ship] [--write README.md]

Each search is `evolve run` with the configuration below on the data set ``suite``, and writes
``reports/discovered-LEVEL``. ``--ship`` writes its champion to ``heuristics/discovered_LEVEL.py.j2``.
``--write`` puts a table between the markers of a file: the shipped rules, and what one would do without
them, on suites drawn with other seeds and on families that no search has seen.

The seeds are the best of a few by ``suite:77`` and ``suite:78``: with gradients of twelve, of which
eight were searched beyond 40 000 evaluations to about 100 000, otherwise of two. Test has chosen nothing, nor
has any of the data sets of the table.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import numpy as np
from pages import write_between

from evolve.candidates import Candidate
from evolve.datasets import find_dataset
from evolve.plugin_files import general_templates
from evolve.plugins import load_catalogue
from evolve.reports.readable import shown_rule
from evolve.results import evaluate_rules
from evolve.signals import LEVELS

ROOT = Path(__file__).resolve().parents[1]
#: Seed and number of evaluations of each level's search.
SEARCHES = {"metadata": (1, 80_000), "gradient": (12, 100_000), "curves": (1, 60_000)}
POPULATION = 200
#: Data sets that no search was made on.
UNSEEN = ("suite:101", "suite:102", "suite-shift:101", "suite-shift:102")
RIVALS = ("layernorm_fp32_else_fp16", "wider_fp16_zone", "uniform_fp16")


def search(level: str, workers: int) -> None:
    """Run the search of a level."""
    seed, evaluations = SEARCHES[level]
    options = {
        "--name": f"discovered-{level}",
        "--datasets": "suite",
        "--signals": level,
        "--seed": seed,
        "--population": POPULATION,
        "--evaluations": evaluations,
        "--generations": evaluations,
        "--workers": workers,
    }
    command = [
        sys.executable,
        "-m",
        "evolve",
        "run",
        *(str(word) for pair in options.items() for word in pair),
    ]
    subprocess.run(command, check=True, cwd=ROOT)


def ship(level: str) -> None:
    """Write a level's champion as a heuristic, with the configuration of its run."""
    run = ROOT / "runs" / f"discovered-{level}"
    candidate = json.loads((run / "champion.json").read_text(encoding="utf-8"))
    config = (run / "config.json").read_text(encoding="utf-8")
    seed, evaluations = SEARCHES[level]
    slots = "\n".join(f"{name} = {json.dumps(content)}" for name, content in candidate["slots"].items())
    parameters = "\n".join(f"{name} = {value!r}" for name, value in candidate["parameters"].items())
    shown = shown_rule(Candidate.from_json(candidate), general_templates()[candidate["template"]])
    rule = "\n".join(f"# {line}".rstrip() for line in shown.source.splitlines())
    text = f"""{{#
# The rule, as `evolve heuristics show` prints it:
#
{rule}

role = "discovered"
source = "benchmarks/discover.py: suite, {level}, seed {seed}, {evaluations} evaluations of genetic; \
configuration {sha256(config.encode()).hexdigest()[:16]}"
summary = "Discovered on suite from {level}; reports/discovered-{level} has its lineage."
template = "{candidate["template"]}"

[slots]
{slots}

[parameters]
{parameters}
#}}
"""
    (ROOT / "heuristics" / f"discovered_{level}.py.j2").write_text(text, encoding="utf-8")


def table() -> str:
    """Return the shares of the optimum of the shipped rules on unseen models as a markdown table."""
    catalogue = load_catalogue()
    lines = [
        "Share of each model's proven optimum, mean / worst of 64 models a data set. "
        "`suite-shift` holds families of models that no search has seen.",
        "",
        f"| rule | reads | {' | '.join(f'`{name}`' for name in UNSEEN)} |",
        f"| --- | --- | {' | '.join('---:' for _ in UNSEEN)} |",
    ]
    names = [*(f"discovered_{level}" for level in reversed(LEVELS) if level in SEARCHES), *RIVALS]
    for name in names:
        heuristic = catalogue.get(name)
        cells = []
        for unseen in UNSEEN:
            dataset = find_dataset(unseen)
            rules = {name: (heuristic.candidate, heuristic.template)}
            results = evaluate_rules(rules, dataset)
            shares = np.array([each.optimum_ratio for each in results if each.split == "test"])
            cells.append(f"{shares.mean():.2%} / {shares.min():.2%}")
        level = LEVELS[heuristic.template.level(heuristic.candidate)]
        lines.append(f"| `{name}` | {level} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Search, ship, and print or write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("levels", nargs="*", choices=[*SEARCHES, []], help="levels to search (default: all)")
    parser.add_argument("--workers", type=int, default=2, help="processes that evaluate")
    parser.add_argument("--ship", action="store_true", help="write the champions to heuristics/")
    parser.add_argument("--only-table", action="store_true", help="search nothing")
    parser.add_argument("--write", type=Path, help="file whose table is to be replaced")
    options = parser.parse_args()
    for level in () if options.only_table else options.levels or SEARCHES:
        search(level, options.workers)
        if options.ship:
            ship(level)
    text = table()
    if options.write:
        write_between(options.write, "unseen models", text)
    print(text)


if __name__ == "__main__":
    main()
