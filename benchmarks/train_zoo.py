"""Train the zoo of real networks, profile each, and measure allocations of each jointly.

    python benchmarks/train_zoo.py [--out datasets] [--weights FOLDER] [--only TEXT] [--seed 0] [--list]

Writes ``measured/`` (profiles by split, ``joint/``, the table in its README) and ``networks/`` (ONNX files
with their data) into the folder. What is there is not made again, so a killed script goes on where it was;
``--only`` makes the networks whose name has that text, ``--seed 100`` other networks of the same names: it is
added to the seed of each, and needs folders of its own for ``--out`` and ``--weights``. One thread: more are
slower on networks this small.
"""

from __future__ import annotations

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # numpy and torch read them when they are imported

import argparse  # noqa: E402
import time  # noqa: E402
from pathlib import Path  # noqa: E402

import torch  # noqa: E402
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: E402
from zoo.catalogue import SHIPPED, catalogue  # noqa: E402
from zoo.facts import write_facts  # noqa: E402
from zoo.shipping import is_made, make, make_onnx  # noqa: E402
from zoo.training import WEIGHTS  # noqa: E402


def main() -> None:
    """Make what is missing."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--out", type=Path, default=Path("datasets"), help="folder of data sets")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="trained; what is missing is trained")
    parser.add_argument("--only", default="", help="networks whose name has this text")
    parser.add_argument("--seed", type=int, default=0, help="added to the seed of every network")
    parser.add_argument("--list", action="store_true", help="list the networks and stop")
    options = parser.parse_args()
    torch.set_num_threads(1)
    entries = [each for each in catalogue(options.seed) if options.only in each.name]
    if options.list:
        for each in entries:
            print(f"{each.split:6} {each.family:14} {each.name}")
        return
    measured, onnx = options.out / "measured", options.out / "networks"
    columns = (TextColumn("{task.description:52}"), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as bars:
        networks = bars.add_task("networks", total=len(entries))
        current = bars.add_task("")
        for entry in entries:

            def told(word: str, done: int, total: int, name: str = entry.name) -> None:
                bars.update(current, description=f"{name}: {word}", completed=done, total=total)

            start = time.perf_counter()
            new = not is_made(entry, measured)
            if new:
                make(entry, measured, options.weights, told)
            if entry.name in SHIPPED:
                make_onnx(entry, onnx, options.weights, told)
            if new:
                bars.console.print(f"{entry.name}: {time.perf_counter() - start:.1f} s")
            bars.advance(networks)
    write_facts(measured)


if __name__ == "__main__":
    main()
