"""Our search beside the general optimisers of the field, in the same run, at equal evaluations.

    pip install 'evolve-precision[peers]'
    python benchmarks/peers.py [--seeds 20] [--evaluations 2000] [--json] [--write docs/peers.md]

Two comparisons: every tool tunes the same numbers of the same rule, and every tool searches the
formats of one model at a time, which a rule saves. Progress goes to standard error. The results are
the same for the same seeds, except for the seconds. ``--write`` puts the tables of each comparison that
was made between its markers of a file.
"""

from __future__ import annotations

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # numpy reads them when it is imported; all tools have one thread

import argparse  # noqa: E402
import json  # noqa: E402
import multiprocessing  # noqa: E402
import sys  # noqa: E402
from collections.abc import Callable, Sequence  # noqa: E402
from concurrent.futures import ProcessPoolExecutor  # noqa: E402
from functools import partial  # noqa: E402
from pathlib import Path  # noqa: E402

from pages import write_between  # noqa: E402
from peer_comparison import each_model, same_numbers  # noqa: E402
from peer_comparison.outcomes import Outcome  # noqa: E402
from peer_comparison.tables import (  # noqa: E402
    Results,
    models_markdown,
    numbers_markdown,
    summarise_models,
    summarise_numbers,
)
from peer_comparison.tools import TOOLS, versions  # noqa: E402

from evolve.executors import end_with_parent  # noqa: E402

Job = Callable[[], Outcome]


def numbers_jobs(dataset: str, seeds: int, budget: int) -> list[Job]:
    """Return the runs of the first comparison, seed by seed."""
    return [
        partial(same_numbers.run, dataset, tool, seed, budget)
        for seed in range(seeds)
        for tool in same_numbers.contestants()
    ]


def models_jobs(
    dataset: str, models: Sequence[str], seeds: int, budget: int, budget_of_tpe: int
) -> list[Job]:
    """Return the runs of the second comparison, model by model."""
    return [
        partial(each_model.run, dataset, model, tool, seed, budget_of_tpe if "TPE" in tool else budget)
        for model in models
        for seed in range(seeds)
        for tool in TOOLS
    ]


def run_all(jobs: Sequence[Job], workers: int) -> list[Outcome]:
    """Run jobs, several at once where there are workers; outcomes in the order of the jobs."""
    if workers == 1:
        return [_report(job(), index, len(jobs)) for index, job in enumerate(jobs, 1)]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=end_with_parent) as pool:
        return [_report(each, index, len(jobs)) for index, each in enumerate(pool.map(_call, jobs), 1)]


def _call(job: Job) -> Outcome:
    return job()


def _report(outcome: Outcome, index: int, count: int) -> Outcome:
    share = outcome.share_at(len(outcome.best_so_far))
    where = f" on {outcome.model}" if outcome.model else ""
    what = f"{index}/{count} {outcome.tool}{where}, seed {outcome.seed}"
    print(f"{what}: {share:.2%} in {outcome.seconds:.1f} s", file=sys.stderr, flush=True)
    return outcome


def compare(arguments: argparse.Namespace) -> Results:
    """Run what is asked for; return the statistics as JSON."""
    results: Results = {"datasets": arguments.datasets, "versions": versions()}
    if arguments.only != "models":
        outcomes = run_all(
            numbers_jobs(arguments.datasets, arguments.seeds, arguments.evaluations), arguments.workers
        )
        results["same_numbers"] = {"seeds": arguments.seeds} | summarise_numbers(
            outcomes, arguments.evaluations
        )
    if arguments.only != "numbers":
        models = each_model.choose_models(arguments.datasets, arguments.models, arguments.most_layers)
        jobs = models_jobs(
            arguments.datasets,
            models,
            arguments.direct_seeds,
            arguments.direct_evaluations,
            min(arguments.tpe_evaluations, arguments.direct_evaluations),
        )
        rules = each_model.rules_on(arguments.datasets, models)
        outcomes = run_all(jobs, arguments.workers)
        results["each_model"] = {"seeds": arguments.direct_seeds} | summarise_models(outcomes, rules)
    return results


def markdown(results: Results) -> dict[str, str]:
    """Return the results as markdown, by the name of the comparison."""
    installed = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    legend = f"Medians with quartiles in brackets; p by Wilcoxon and Holm. {installed}."
    pages = {}
    if "same_numbers" in results:
        found = results["same_numbers"]
        pages["numbers"] = (
            f"{legend}\n\nData set {results['datasets']}, seeds 0 to {found['seeds'] - 1}, "
            f"{found['evaluations']} evaluations.\n\n{numbers_markdown(found)}"
        )
    if "each_model" in results:
        found = results["each_model"]
        pages["models"] = (
            f"{legend}\n\nTest models of {results['datasets']}: {', '.join(found['models'])}; "
            f"seeds 0 to {found['seeds'] - 1}.\n\n{models_markdown(found)}"
        )
    return pages


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--datasets", default="suite")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--evaluations", type=int, default=2000)
    parser.add_argument("--direct-seeds", type=int, default=5, help="seeds of the search of each model")
    parser.add_argument("--direct-evaluations", type=int, default=10_000)
    parser.add_argument("--tpe-evaluations", type=int, default=1000, help="Optuna's, whose time grows fast")
    parser.add_argument("--models", type=int, default=5, help="test models searched one by one")
    parser.add_argument("--most-layers", type=int, default=128, help="of a model searched on its own")
    parser.add_argument("--only", choices=("numbers", "models"))
    parser.add_argument("--workers", type=int, default=1, help="more than one disturb the seconds")
    parser.add_argument("--json", action="store_true", help="print JSON instead of markdown")
    parser.add_argument("--write", type=Path, help="put the tables between the markers of this file")
    return parser.parse_args(words)


def main() -> None:
    """Print the tables, and put them into a file if asked to."""
    arguments = parse()
    results = compare(arguments)
    pages = markdown(results)
    print(json.dumps(results, indent=2) if arguments.json else "\n\n".join(pages.values()))
    if arguments.write:
        for name, text in pages.items():
            write_between(arguments.write, f"peers, {name}", text)


if __name__ == "__main__":
    main()
