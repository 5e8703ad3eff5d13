"""One total order of imports: a module imports only from modules above it in this list."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import evolve

PACKAGE = Path(evolve.__file__).parent

#: Every module, each importing only from those above it. Where a new module fits nowhere, the design is
#: wrong, not the list.
ORDER = [
    line
    for line in """
evolve
evolve.errors
evolve.outputs
evolve.formats
evolve.fields
evolve.layer_groups
evolve.layer_tables
evolve.profiles
evolve.copies
evolve.profile_files
evolve.allocations
evolve.budgets
evolve.architectures
evolve.synthetic
evolve.datasets
evolve.joint
evolve.model_lookup
evolve.candidates

evolve.scoring
evolve.allocators
evolve.knapsack
evolve.optimum
evolve.constraints
evolve.objectives
evolve.pareto
evolve.quantizers.encoding
evolve.quantizers.packing
evolve.quantizers.minifloat
evolve.quantizers.grouping
evolve.quantizers.clipping
evolve.quantizers.scales
evolve.quantizers.schemes
evolve.quantizers.uniform
evolve.quantizers.floats
evolve.quantizers.codebooks
evolve.quantizers.quantizer
evolve.quantizers.catalogue
evolve.quantizers
evolve.statistics

evolve.parameters
evolve.signals
evolve.views
evolve.heuristics
evolve.extensions
evolve.expressions
evolve.number_ranges
evolve.simplification
evolve.python_source
evolve.templates
evolve.plugin_files
evolve.rule_calls
evolve.loss_fitting
evolve.families
evolve.evaluation
evolve.price_tables
evolve.price_fitting
evolve.results

evolve.grammar
evolve.typed_trees
evolve.variation
evolve.ancestry
evolve.search.base
evolve.search.plugin_operators
evolve.search.plugin_strategies
evolve.search.operators
evolve.search.rates
evolve.search.calibration
evolve.search.fitting
evolve.search.making
evolve.search.refinement
evolve.search.refiner
evolve.search.numbers
evolve.search.breeding
evolve.search.well_fitted
evolve.search.genetic
evolve.search.hillclimb
evolve.search.islands
evolve.search.map_elites
evolve.search.fronts
evolve.search.nsga2
evolve.search.random_search
evolve.search.earnings
evolve.search

evolve.extension_files
evolve.plugins
evolve.standalone
evolve.plugin_check
evolve.new_plugins
evolve.ruled
evolve.questions

evolve.executors
evolve.batches
evolve.store
evolve.configuration
evolve.setup
evolve.strategy_check
evolve.extension_check
evolve.engine
evolve.benchmark_cells
evolve.benchmark_history
evolve.benchmarking
evolve.comparison

evolve.verdicts.models
evolve.verdicts.bootstrap
evolve.verdicts.wording
evolve.verdicts.overfitting
evolve.verdicts.robustness
evolve.verdicts.budget_alternatives
evolve.verdicts.alternatives
evolve.verdicts.control
evolve.verdicts.luck
evolve.verdicts.parts
evolve.verdicts.undoing
evolve.verdicts.ancestry
evolve.verdicts

evolve.reports
evolve.reports.markdown
evolve.reports.syntax
evolve.reports.rule_source
evolve.reports.phrases
evolve.reports.words
evolve.reports.cleaning
evolve.reports.naming
evolve.reports.readable
evolve.reports.champion
evolve.reports.lineage
evolve.reports.reproduction
evolve.reports.tables
evolve.reports.allocations
evolve.reports.front
evolve.reports.operators
evolve.reports.generations
evolve.reports.drawing
evolve.reports.network_facts
evolve.reports.layer_picture
evolve.reports.box_plots
evolve.reports.sum_plots
evolve.reports.network_sums
evolve.reports.networks
evolve.reports.network_report
evolve.reports.contents
evolve.reports.report
evolve.reports.precision_map
evolve.reports.search_figure
evolve.reports.figures
evolve.reports.index
evolve.reports.writer
evolve.reports.benchmark_tables
evolve.reports.benchmark_figures
evolve.reports.benchmark
evolve.reports.replay
evolve.reports.verification

evolve.networks.extras
evolve.networks.network
evolve.networks.metrics
evolve.networks.slicing
evolve.networks.replay
evolve.networks.weight_statistics
evolve.networks.activations
evolve.networks.ties
evolve.networks.torch_tape
evolve.networks.torch_memory
evolve.networks.torch_recorder
evolve.networks.torch_products
evolve.networks.torch_layers
evolve.networks.torch_batches
evolve.networks.torch_network
evolve.networks.torch_gradients
evolve.networks.onnx_constants
evolve.networks.onnx_files
evolve.networks.onnx_graph
evolve.networks.onnx_layers
evolve.networks.onnx_left_out
evolve.networks.onnx_data
evolve.networks.onnx_network
evolve.networks.sources
evolve.networks.journal
evolve.networks.signals
evolve.networks.measuring
evolve.networks.profiling
evolve.networks.applying
evolve.networks.measurement_cache
evolve.networks.joint_measuring
evolve.networks.joint_search
evolve.networks.checking
evolve.networks.choosing
evolve.networks.handing_out
evolve.networks

evolve.exporters.export
evolve.exporters.experts
evolve.exporters.storage
evolve.exporters.groups
evolve.exporters.rounding
evolve.exporters.notes
evolve.exporters.texts
evolve.exporters.files
evolve.exporters.compressed_tensors
evolve.exporters.llm_compressor
evolve.exporters.torchao
evolve.exporters.gptqmodel
evolve.exporters.llama_cpp
evolve.exporters.modelopt
evolve.exporters.onnx_places
evolve.exporters.onnx_lookup
evolve.exporters.onnxruntime
evolve.exporters.mlx
evolve.exporters

evolve.cli.output
evolve.cli.progress
evolve.cli.scoring
evolve.cli.allocating
evolve.cli.benchmarking
evolve.cli.exporting
evolve.cli.networks
evolve.cli.profiling
evolve.cli.running
evolve.cli.catalogue
evolve.cli
evolve.__main__
""".splitlines()
    if line
]

#: What only the verbs that need it may load.
HEAVY = ("numpy", "scipy", "pandas", "matplotlib", "deap", "jinja2")


def module_name(file: Path) -> str:
    parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, ast.Module]:
    # The wheel's copies of plugins and data, and the templates, are no modules.
    files = [each for each in PACKAGE.rglob("*.py") if "shipped" not in each.parts]
    return {module_name(file): ast.parse(file.read_text(encoding="utf-8")) for file in files}


def imported_names(tree: ast.Module) -> Iterator[str]:
    """Yield every dotted name that a module imports, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import hides where it leads"
            yield from (f"{node.module}.{each.name}" for each in node.names)


def imported_modules(name: str) -> set[str]:
    """Return the modules of this package that a module imports."""
    found = set()
    for imported in imported_names(modules()[name]):
        if imported.split(".")[0] == "evolve":
            found.add(imported if imported in modules() else imported.rpartition(".")[0] or imported)
    return found


def test_every_module_has_one_place() -> None:
    assert sorted(ORDER) == sorted(modules())


@pytest.mark.parametrize("name", ORDER)
def test_imports_only_from_above(name: str) -> None:
    above = ORDER[: ORDER.index(name)]
    assert sorted(imported_modules(name) - set(above)) == []


@pytest.mark.parametrize("edge", ["evolve.reports", "evolve.exporters"])
def test_only_the_command_line_imports_edges(edge: str) -> None:
    importers = {name for name in modules() if any(each.startswith(edge) for each in imported_modules(name))}
    outside = {name for name in importers if not name.startswith(edge)}
    assert outside == {name for name in outside if name.startswith("evolve.cli")} != set()


def test_no_way_around_the_order() -> None:
    for name, tree in modules().items():
        words = {each.id for each in ast.walk(tree) if isinstance(each, ast.Name)}
        words |= {each.attr for each in ast.walk(tree) if isinstance(each, ast.Attribute)}
        words |= {each.split(".")[-1] for each in imported_names(tree)}
        assert not words & {"TYPE_CHECKING", "import_module", "__import__"}, name


def test_nothing_is_compiled_by_numba() -> None:
    importers = [name for name, tree in modules().items() if "numba" in top_levels(tree)]
    assert importers == []


def top_levels(tree: ast.Module) -> set[str]:
    return {each.split(".")[0] for each in imported_names(tree)}


def loaded_by(code: str, folder: Path) -> set[str]:
    """Run Python in another process and return which heavy packages it has loaded."""
    report = f"import sys; print(*(each for each in {HEAVY} if each in sys.modules), file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], cwd=folder, capture_output=True, text=True, check=True
    )
    return set(done.stderr.splitlines()[-1].split()) if done.stderr.strip() else set()


def verb(*arguments: str) -> str:
    return f"""
import runpy, sys
sys.argv = ["evolve", *{arguments}]
try:
    runpy.run_module("evolve", run_name="__main__")
except SystemExit as leaving:
    assert leaving.code == 0, leaving.code
"""


def test_help_loads_nothing_heavy(tmp_path: Path) -> None:
    assert loaded_by(verb("--help"), tmp_path) == set()


def test_the_engine_loads_nothing_of_the_edges(tmp_path: Path) -> None:
    loaded = loaded_by("import evolve.engine", tmp_path)
    assert "numpy" in loaded
    assert not loaded & {"matplotlib", "pandas", "scipy"}


def test_pictures_are_loaded_only_to_be_drawn(tmp_path: Path) -> None:
    run = verb("run", "--generations", "1", "--population", "2", "--no-figures")
    assert "matplotlib" not in loaded_by(run, tmp_path)
