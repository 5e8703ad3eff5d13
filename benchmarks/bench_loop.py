"""How fast the loop is, where its time goes, and deap's plain loop beside it in the same run.

    python benchmarks/bench_loop.py [--population 1000] [--generations 4] [--repeats 3] [--json]

Measured on one core: candidates per second of the search with journal and lineage, on the published
data and on the generated suite; the same number of individuals in deap's ``eaSimple``, whose genome
is the published model's 131 formats and whose evaluation is a plain Python loop over them; and the
default run as a process, with and without pictures. A rule of ours allocates for every model of
train and valid, so layers per second stand beside candidates per second.
"""

# ruff: noqa: E402 - the number of threads must be set before numpy is loaded
from __future__ import annotations

import os

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import argparse
import cProfile
import json
import pstats
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from evolve.configuration import RunConfig
from evolve.datasets import find_dataset
from evolve.engine import search
from evolve.profiles import ModelProfile
from evolve.scoring import THRESHOLD
from evolve.setup import Setup, prepare_run
from evolve.store import create_run

DATASETS = ("reference", "suite")
SEED = 0
TOP = 15
SAMPLE_SECONDS = 0.001


def run_search(setup: Setup) -> tuple[int, float, float]:
    """Run one search in a folder of its own; return its evaluations, its seconds and its processor's."""
    with tempfile.TemporaryDirectory() as folder:
        store = create_run("loop", setup.resolved(), Path(folder))
        start, worked = time.perf_counter(), time.process_time()
        outcome = search(setup, store)
        return len(outcome.scored), time.perf_counter() - start, time.process_time() - worked


def measure_loop(datasets: str, population: int, generations: int, repeats: int) -> dict[str, Any]:
    """Return the throughput of the loop on a data set, and the profile of one more run."""
    config = RunConfig(datasets=datasets, population=population, generations=generations, seed=SEED)
    start = time.perf_counter()
    setup = prepare_run(config)
    layers = sum(each.num_layers for each in setup.arena.profiles)
    assert len(setup.arena.optimum_fitness)  # computed here, once a data set
    prepared = time.perf_counter() - start
    measured = [run_search(setup) for _ in range(repeats)]
    rate = statistics.median(count / seconds for count, seconds, _ in measured)
    return {
        "models": len(setup.arena.profiles),
        "layers": layers,
        "evaluations": measured[0][0],
        "prepare_seconds": prepared,
        "seconds": [seconds for _, seconds, _ in measured],
        "candidates_per_second": rate,
        # What the rate would be if nothing else ran on the machine.
        "candidates_per_processor_second": statistics.median(count / worked for count, _, worked in measured),
        "layers_per_second": rate * layers,
        "profile": profile(lambda: run_search(setup)),
    }


def profile(call: Callable[[], object]) -> dict[str, Any]:
    """Return where two more calls spend their time.

    The first is sampled each millisecond of processor time: by step of the loop, and by module of
    ours, with the libraries it calls. The second runs under cProfile, where calls cost more than
    work: own seconds of single functions, libraries and built-ins included.
    """
    steps, modules = sample(call)
    profiler = cProfile.Profile()
    profiler.runcall(call)
    functions = [
        {"module": module_name(file), "function": name, "calls": calls, "own_seconds": own}
        for (file, _, name), (_, calls, own, _, _) in pstats.Stats(profiler).stats.items()
    ]
    functions.sort(key=lambda each: -each["own_seconds"])
    return {"steps": steps, "modules": modules, "functions": functions[:TOP]}


def sample(call: Callable[[], object]) -> tuple[dict[str, float], dict[str, float]]:
    """Return shares of a call's time by step of the loop and by module."""
    steps: Counter[str] = Counter()
    modules: Counter[str] = Counter()

    def note(_number: int, frame: FrameType | None) -> None:
        module = step = ""
        while frame is not None:
            name = module_name(frame.f_code.co_filename)
            if name.startswith(("evolve.", "rules")):
                module = module or name
                if frame.f_code is search.__code__:
                    break
                step = frame.f_code.co_name
            frame = frame.f_back
        if frame is not None:
            steps[step or "search"] += 1
            modules[module] += 1

    before = signal.signal(signal.SIGPROF, note)
    signal.setitimer(signal.ITIMER_PROF, SAMPLE_SECONDS, SAMPLE_SECONDS)
    try:
        call()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    total = max(1, sum(steps.values()))
    return (
        {name: count / total for name, count in steps.most_common(TOP)},
        {name: count / total for name, count in modules.most_common(TOP)},
    )


def module_name(file: str) -> str:
    """Return what a code file is called: a module of ours, a library, or the standard library."""
    parts = Path(file).with_suffix("").parts
    if file == "~":
        return "built-in"
    if "site-packages" in parts:
        return parts[parts.index("site-packages") + 1]
    if "evolve" in parts:
        return ".".join(parts[len(parts) - 1 - parts[::-1].index("evolve") :])
    return "rules" if file.startswith("<") or file.endswith((".j2", ">")) else "standard library"


def plain_fitness(profile: ModelProfile) -> Callable[[list[int]], tuple[float]]:
    """Return the published fitness as one would write it first: a loop over the layers."""
    params = profile.num_params.tolist()
    bits = profile.bits.tolist()
    sensitivity = profile.sensitivity.tolist()
    full = sum(params) * 32.0

    def fitness(allocation: list[int]) -> tuple[float]:
        used, retention = 0.0, 1.0
        for layer, choice in enumerate(allocation):
            used += params[layer] * bits[choice]
            retention *= 1.0 - sensitivity[layer][choice]
        if retention < THRESHOLD:
            return (0.1 * retention,)
        return (full / used * (1 + (retention - THRESHOLD) / (1 - THRESHOLD)),)

    return fitness


def measure_deap(population: int, generations: int, repeats: int) -> dict[str, Any]:
    """Return the throughput of ``eaSimple`` on the allocation of the published train model."""
    from deap import algorithms, base, creator, tools

    model = find_dataset("reference").train[0]
    creator.create("Highest", base.Fitness, weights=(1.0,))
    creator.create("Allocation", list, fitness=creator.Highest)
    toolbox = base.Toolbox()
    toolbox.register("format", random.randrange, len(model.formats))
    toolbox.register("individual", tools.initRepeat, creator.Allocation, toolbox.format, model.num_layers)
    toolbox.register("population", tools.initRepeat, list, toolbox.individual)
    toolbox.register("evaluate", plain_fitness(model))
    toolbox.register("mate", tools.cxTwoPoint)
    toolbox.register("mutate", tools.mutUniformInt, low=0, up=len(model.formats) - 1, indpb=0.02)
    toolbox.register("select", tools.selTournament, tournsize=3)
    rates, processor_rates, seconds, evaluations = [], [], [], 0
    for _ in range(repeats):
        random.seed(SEED)
        start, worked = time.perf_counter(), time.process_time()
        _, log = algorithms.eaSimple(
            toolbox.population(n=population), toolbox, 0.7, 0.3, generations - 1, verbose=False
        )
        seconds.append(time.perf_counter() - start)
        evaluations = sum(each["nevals"] for each in log)
        rates.append(evaluations / seconds[-1])
        processor_rates.append(evaluations / (time.process_time() - worked))
    rate = statistics.median(rates)
    return {
        "layers": model.num_layers,
        "evaluations": evaluations,
        "seconds": seconds,
        "candidates_per_second": rate,
        "candidates_per_processor_second": statistics.median(processor_rates),
        "layers_per_second": rate * model.num_layers,
    }


def measure_process(repeats: int) -> dict[str, Any]:
    """Return the seconds of the default run as a process, median of some in new folders."""
    found = {}
    for label, words in (("with_figures", []), ("without_figures", ["--no-figures"])):
        seconds = []
        for _ in range(repeats):
            with tempfile.TemporaryDirectory() as folder:
                start = time.perf_counter()
                command = [sys.executable, "-m", "evolve", "run", *words]
                subprocess.run(command, cwd=folder, check=True, capture_output=True)
                seconds.append(time.perf_counter() - start)
        found[label] = statistics.median(seconds)
    return found


def as_text(found: dict[str, Any]) -> str:
    """Return the results for people."""
    lines = []
    for name, each in [*found["loop"].items(), ("deap eaSimple", found["deap"])]:
        lines.append(
            f"{name:14} {each['candidates_per_second']:9,.0f} candidates/s  "
            f"{each['candidates_per_processor_second']:9,.0f} per processor second  "
            f"{each['layers_per_second'] / 1e6:7.2f} million layers/s  "
            f"({each['evaluations']} evaluations of {each['layers']} layers)"
        )
    for name, ratios in found["ratios_to_deap"].items():
        text = ", ".join(f"{ratio:.2f} × in {unit}" for unit, ratio in ratios.items())
        lines.append(f"{name} beside deap: {text}")
    for label, seconds in found["process"].items():
        lines.append(f"default run {label.replace('_', ' ')}: {seconds:.2f} s")
    for name, each in found["loop"].items():
        for kind in ("steps", "modules"):
            lines += ["", f"{name}, share of the time by {kind}:"]
            lines += [f"  {100 * share:5.1f} %  {label}" for label, share in each["profile"][kind].items()]
        lines += ["", f"{name}, under cProfile: own seconds and calls by function:"]
        lines += [
            f"  {row['own_seconds']:7.3f}  {row['calls']:9,}  {row['module']}: {row['function']}"
            for row in each["profile"]["functions"]
        ]
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--population", type=int, default=1000)
    parser.add_argument("--generations", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    sizes = arguments.population, arguments.generations, arguments.repeats
    found: dict[str, Any] = {"population": sizes[0], "generations": sizes[1], "repeats": sizes[2]}
    found["loop"] = {name: measure_loop(name, *sizes) for name in DATASETS}
    found["deap"] = measure_deap(*sizes)
    found["ratios_to_deap"] = {
        name: {
            unit: each[f"{unit}_per_second"] / found["deap"][f"{unit}_per_second"]
            for unit in ("candidates", "layers")
        }
        for name, each in found["loop"].items()
    }
    found["process"] = measure_process(arguments.repeats)
    print(json.dumps(found, indent=2) if arguments.json else as_text(found))


if __name__ == "__main__":
    main()
