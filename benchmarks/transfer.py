r"""Leave one family of real networks out: do rules carry over to networks of a kind that they never saw?

    python benchmarks/transfer.py [--workers 2] [--write README.md] [--json]

For each family of ``datasets/measured`` rules are evolved on the others, twice: from cheap signals and
from curves. The finalists are put on the real networks of the other families, and the best of them is
measured on the family left out, beside what one would have without a search. Writes ``reports/transfer``.

The networks are those of ``benchmarks/zoo/weights``. Searches and measurements are kept in
``runs/transfer``: a killed script goes on where it was. On other networks it is a replication, which
needs folders of its own, here for those that ``train_zoo.py --seed 100`` makes:

    python benchmarks/train_zoo.py --seed 100 --out runs/zoo-100 --weights runs/zoo-100/weights
    python benchmarks/transfer.py --dataset runs/zoo-100/measured --weights runs/zoo-100/weights \
        --runs runs/transfer-100 --out reports/transfer-replication --write README.md
"""

from __future__ import annotations

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_variable] = "1"  # numpy and torch read them when they are imported

import argparse  # noqa: E402
import json  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402

from pages import write_between  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: E402
from transfer_study.report import facts, replication, summary, write_report  # noqa: E402
from transfer_study.study import MEASURED, Settings, run_study  # noqa: E402
from zoo.training import WEIGHTS  # noqa: E402

#: Settings of the figures in the README.
EVALUATIONS, SEED = 1200, 0


def main() -> None:
    """Search, measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--evaluations", type=int, default=EVALUATIONS, help="of each of the six searches")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--workers", type=int, default=2, help="searches or networks at once")
    parser.add_argument("--runs", type=Path, default=Path("runs/transfer"), help="keeps what was done")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="the trained networks")
    parser.add_argument("--dataset", default=MEASURED, help="their profiles: a data set, or its folder")
    parser.add_argument("--out", type=Path, default=Path("reports/transfer"), help="folder of the report")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    parser.add_argument("--write", type=Path, help="page whose table is to be replaced")
    options = parser.parse_args()
    settings = Settings(options.evaluations, options.seed, options.runs, options.weights, options.dataset)
    columns = (TextColumn("{task.description:12}"), BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(file=sys.stderr)) as bars:
        tasks = {words: bars.add_task(words, total=None) for words in ("searches", "networks")}

        def told(words: str, done: int, total: int) -> None:
            bars.update(tasks[words], completed=done, total=total)

        chosen, rows = run_study(settings, options.workers, told)
    write_report(options.out, rows, chosen, settings)
    shown = summary(rows) if options.dataset == MEASURED else replication(rows)
    if options.write:
        place = "transfer" if options.dataset == MEASURED else "transfer replication"
        write_between(options.write, place, shown)
    print(json.dumps(facts(rows, chosen, settings)) if options.json else shown)


if __name__ == "__main__":
    main()
