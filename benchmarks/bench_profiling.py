"""How long a profile of a real network takes: downstream only, beside a full forward pass for each cell.

    python benchmarks/bench_profiling.py [--json] [--network NAME] [--repeats N]

Both ways measure the same cells (every weight layer in four formats) on the same data and compare the
outputs in the same way; only what is run differs. Each way is a process of its own, so that its peak
memory is its own; memory is counted above a process that has imported the libraries and nothing else, and
glibc gives large blocks back at once, so that what counts is what is held.
Times are of the processor, of which other programs take no share. The passes for the Fisher information
and for the Hessian's trace are run too, for their memory.
"""

from __future__ import annotations

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # numpy and torch read them when they are imported

import argparse  # noqa: E402
import json  # noqa: E402
import resource  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import time  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torch import nn  # noqa: E402

from evolve.networks.metrics import Reference  # noqa: E402
from evolve.networks.replay import Replay  # noqa: E402
from evolve.networks.torch_gradients import fisher_information, hessian_traces  # noqa: E402
from evolve.networks.torch_network import TorchNetwork  # noqa: E402
from evolve.quantizers import find_quantizer  # noqa: E402

FORMATS = ("INT3", "INT4", "INT6", "INT8")
COMPARED = ("plain", "downstream")
GRADIENTS = ("fisher", "hessian")
WAYS = ("import", *COMPARED, *GRADIENTS)


class Block(nn.Module):
    """A block of a transformer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), nn.MultiheadAttention(width, 8, batch_first=True)
        self.norm2, self.wide = nn.LayerNorm(width), nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (N, T, width) to the same."""
        h = self.norm1(x)
        x = x + self.attn(h, h, h, need_weights=False)[0]
        return x + self.narrow(nn.functional.gelu(self.wide(self.norm2(x))))


def perceptron() -> tuple[nn.Module, list[Any]]:
    """Twelve linear layers of 1024."""
    layers = [nn.Sequential(nn.Linear(1024, 1024), nn.ReLU()) for _ in range(11)]
    data = [(torch.randn(128, 1024), torch.randint(0, 10, (128,))) for _ in range(4)]
    return nn.Sequential(*layers, nn.Linear(1024, 10)), data


def transformer() -> tuple[nn.Module, list[Any]]:
    """Twelve blocks of width 256, 2 × 8 × 48 tokens."""
    model = nn.Sequential(nn.Embedding(256, 256), *(Block(256) for _ in range(12)), nn.Linear(256, 256))
    return model, [torch.randint(0, 256, (8, 48)) for _ in range(2)]


def convolutions() -> tuple[nn.Module, list[Any]]:
    """Twelve convolutions of 64 channels on 16 × 16 pixels, each with BatchNorm."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()]
    for _ in range(11):
        layers += [nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU()]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    data = [(torch.randn(16, 3, 16, 16), torch.randint(0, 10, (16,))) for _ in range(2)]
    return nn.Sequential(*layers), data


NETWORKS = {"perceptron": perceptron, "transformer": transformer, "convolutions": convolutions}


def measure(name: str, way: str) -> dict[str, Any]:
    """Measure every cell in one way, or run the passes of gradients, in this process."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    divergences: list[float] = []
    seconds = 0.0
    if way != "import":
        network = TorchNetwork(*NETWORKS[name]())
        batches = range(network.num_batches)
        reference = Reference(
            network.task, [network.outputs(at) for at in batches], [network.targets(at) for at in batches]
        )
        if way == "fisher":
            fisher_information(network, reference, np.random.default_rng(0), draws=2)
        if way == "hessian":
            hessian_traces(network, np.random.default_rng(0), probes=2)
        replay = Replay(network)
        for layer in network.layers if way in COMPARED else ():
            weights = network.weights(layer.name)
            for quantizer in map(find_quantizer, FORMATS):
                rounded = quantizer.dequantized(weights)
                # Rounding takes both ways the same time, so it is not counted.
                start = time.process_time()
                if way == "plain":
                    found = reference.compare(network.outputs(at, {layer.name: rounded}) for at in batches)
                else:
                    found = reference.compare(replay.outputs(layer.name, rounded))
                seconds += time.process_time() - start
                divergences.append(found.divergence)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "peak": peak, "divergences": divergences}


def run(name: str, way: str) -> dict[str, Any]:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, "--network", name, "--way", way]
    # Otherwise freed blocks up to the largest size met so far stay with the process.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20)}
    found = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return dict(json.loads(found.stdout))


def compare(name: str, repeats: int) -> dict[str, Any]:
    """Return times, memory and the largest difference of the two ways, the medians of all repeats."""
    found = {way: [run(name, way) for _ in range(repeats)] for way in WAYS}
    numbers = [np.array(found[way][0]["divergences"]) for way in COMPARED]
    seconds = {way: statistics.median(each["seconds"] for each in found[way]) for way in COMPARED}
    peaks = {way: statistics.median(each["peak"] for each in found[way]) for way in WAYS}
    memory = {way: peaks[way] - peaks["import"] for way in WAYS[1:]}
    return {
        "network": name,
        "cells": len(numbers[0]),
        "plain_seconds": seconds["plain"],
        "downstream_seconds": seconds["downstream"],
        "times_faster": seconds["plain"] / seconds["downstream"],
        "plain_mebibytes": memory["plain"],
        "downstream_mebibytes": memory["downstream"],
        "times_the_memory": memory["downstream"] / memory["plain"],
        **{f"{way}_times_the_memory": memory[way] / memory["plain"] for way in GRADIENTS},
        "largest_difference": float(np.abs(numbers[0] - numbers[1]).max()),
    }


def main() -> None:
    """Print the comparison for every network."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--network", choices=NETWORKS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        print(json.dumps(measure(options.network, options.way)))
        return
    rows = [compare(name, options.repeats) for name in ([options.network] if options.network else NETWORKS)]
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    for row in rows:
        print(
            f"{row['network']:12}  {row['cells']:4} cells   plain {row['plain_seconds']:6.2f} s "
            f"{row['plain_mebibytes']:5.0f} MiB   downstream {row['downstream_seconds']:6.2f} s "
            f"{row['downstream_mebibytes']:5.0f} MiB   {row['times_faster']:.2f} times faster, "
            f"{row['times_the_memory']:.2f} times the memory (Fisher {row['fisher_times_the_memory']:.2f}, "
            f"Hessian {row['hessian_times_the_memory']:.2f}), differences up to "
            f"{row['largest_difference']:.1e}"
        )


if __name__ == "__main__":
    main()
