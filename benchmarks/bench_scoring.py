"""How fast populations are scored, on one core: ours beside the plain loop and the usual ways in numpy.

    python benchmarks/bench_scoring.py [--json]

Rates count whole allocations, that is rows of L layers: the plain loop scores some ten thousand of
them a second. Multiplied by L, they are layers scored per second, which is shown as well.
"""

from __future__ import annotations

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # numpy reads them when it is imported

import argparse  # noqa: E402
import json  # noqa: E402
import statistics  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402

import numpy as np  # noqa: E402
from numpy.typing import NDArray  # noqa: E402

from evolve.scoring import cliff_fitness, prepare, score_loop  # noqa: E402

Choices = NDArray[np.uint8]
Floats = NDArray[np.float64]
Scorer = Callable[[Choices], Floats]
LOOP_ROWS = 200  # the loops' rate does not depend on the number of rows
TURN = 0.01  # seconds of the processor, of which other programs take no share


def make_scorers(num_params: Floats, bits: Floats, sensitivity: Floats) -> dict[str, Scorer]:
    """Return the ways to score, each from choices (P, L) to fitness (P,); tables are made beforehand."""
    reference_bits = 32 * num_params.sum()
    cost, log_retention = num_params[:, None] * bits, np.log1p(-sensitivity)
    layers = np.arange(len(num_params))
    first = layers * len(bits)
    flat_cost, flat_log_retention = cost.ravel(), log_retention.ravel()
    table = prepare(num_params, bits, sensitivity)
    params_list, bits_list, sensitivity_list = num_params.tolist(), bits.tolist(), sensitivity.tolist()

    def loop_over_arrays(choices: Choices) -> Floats:
        return score_loop(choices, num_params, bits, sensitivity).fitness

    def loop_over_lists(choices: Choices) -> Floats:
        compression, accuracy = [], []
        for allocation in choices.tolist():
            total_bits, retention = 0.0, 1.0
            for layer, choice in enumerate(allocation):
                total_bits += params_list[layer] * bits_list[choice]
                retention *= 1 - sensitivity_list[layer][choice]
            compression.append(reference_bits / total_bits)
            accuracy.append(retention)
        return cliff_fitness(compression, accuracy)

    def fancy_indexing(choices: Choices) -> Floats:
        total_bits = cost[layers, choices].sum(axis=1)
        return cliff_fitness(reference_bits / total_bits, np.exp(log_retention[layers, choices].sum(axis=1)))

    def flat_take(choices: Choices) -> Floats:
        index = choices + first
        total_bits = flat_cost.take(index).sum(axis=1)
        return cliff_fitness(reference_bits / total_bits, np.exp(flat_log_retention.take(index).sum(axis=1)))

    def ours(choices: Choices) -> Floats:
        return table.score(choices).fitness

    return {
        "loop over arrays": loop_over_arrays,
        "loop over lists": loop_over_lists,
        "fancy indexing": fancy_indexing,
        "flat take": flat_take,
        "ours": ours,
    }


def measure(scorers: dict[str, Scorer], choices: Choices, repeats: int) -> dict[str, float]:
    """Return the median rate of each scorer, in allocations per second.

    They take turns, each of at least TURN seconds and several calls, so that none is measured cold.
    """
    rates: dict[str, list[float]] = {name: [] for name in scorers}
    for _ in range(repeats):
        for name, scorer in scorers.items():
            rows = choices[:LOOP_ROWS] if name.startswith("loop") else choices
            scorer(rows)
            calls, start, elapsed = 0, time.process_time(), 0.0
            while elapsed < TURN:
                scorer(rows)
                calls, elapsed = calls + 1, time.process_time() - start
            rates[name].append(calls * len(rows) / elapsed)
    return {name: statistics.median(each) for name, each in rates.items()}


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--layers", type=int, default=131)
    parser.add_argument("--formats", type=int, default=5)
    parser.add_argument("--models", type=int, default=64, help="models of the stack")
    parser.add_argument("--populations", type=int, nargs="+", default=[1000, 10_000, 100_000])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    L, K, M = arguments.layers, arguments.formats, arguments.models

    rng = np.random.default_rng(0)
    num_params = np.round(10 ** rng.uniform(3, 8, M * L))
    bits = np.sort(rng.choice(np.arange(2, 2 + max(32, K)), K, replace=False)).astype(float)
    sensitivity = rng.random((M * L, K)) * 0.1 / L
    one_model = num_params[:L], bits, sensitivity[:L]
    scorers = make_scorers(*one_model)
    stack = prepare(num_params, bits, sensitivity, offsets=np.arange(0, M * L + 1, L))

    results = []
    for size in arguments.populations:
        choices = rng.integers(0, K, (size, L), dtype=np.uint8)
        expected = scorers["loop over arrays"](choices[:LOOP_ROWS])
        for scorer in scorers.values():
            np.testing.assert_allclose(scorer(choices)[: len(expected)], expected, rtol=1e-12)
        rates = measure(scorers, choices, arguments.repeats)
        results += [
            {"scorer": name, "population": size, "allocations_per_second": rate}
            for name, rate in rates.items()
        ]
    choices = rng.integers(0, K, (min(arguments.populations), M * L), dtype=np.uint8)
    rate = measure({"stack": lambda rows: stack.score(rows).fitness}, choices, arguments.repeats)["stack"]
    name = f"ours, stack of {M} models"
    results.append({"scorer": name, "population": len(choices), "allocations_per_second": rate * M})

    slowest = {each["population"]: each for each in results if each["scorer"] == "loop over arrays"}
    for each in results:
        each["layers_per_second"] = each["allocations_per_second"] * L
        each["ratio_to_loop"] = (
            each["allocations_per_second"] / slowest[each["population"]]["allocations_per_second"]
        )
    if arguments.json:
        print(json.dumps({"layers": L, "formats": K, "models": M, "results": results}, indent=1))
        return
    print(f"{L} layers, {K} formats, one core; median of {arguments.repeats}")
    print(f"{'scorer':26} {'population':>10} {'allocations/s':>14} {'layers/s':>10} {'x loop':>8}")
    for each in results:
        print(
            f"{each['scorer']:26} {each['population']:10,} {each['allocations_per_second']:14,.0f} "
            f"{each['layers_per_second']:10.2e} {each['ratio_to_loop']:8.1f}"
        )


if __name__ == "__main__":
    main()
