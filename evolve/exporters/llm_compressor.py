"""llm-compressor: a recipe, which `oneshot` applies to a model and saves in compressed-tensors' form.

Source of the format: `Recipe` and `QuantizationModifier` of llm-compressor 0.14.
"""

from __future__ import annotations

from evolve.allocations import Allocation
from evolve.exporters import compressed_tensors
from evolve.exporters.experts import find_routers
from evolve.exporters.export import Export, Options, Target
from evolve.exporters.notes import saved_types
from evolve.exporters.rounding import settle
from evolve.exporters.texts import to_yaml

_MSE = "memoryless_mse"


def export(allocation: Allocation, options: Options) -> Export:
    """Return the recipe; formats that are clipped ask for the observer of least squared error.

    Raises:
        InputError: The options name a layer that is not there.
    """
    settled = settle(
        allocation,
        options,
        TARGET,
        compressed_tensors.storages,
        clips=True,
        alone=find_routers(allocation),
    )
    modifier = {
        "ignore": compressed_tensors.ignored(settled),
        "config_groups": compressed_tensors.config_groups(settled, _MSE),
    }
    recipe = {"quant_stage": {"quant_modifiers": {"QuantizationModifier": modifier}}}
    return settled.export(TARGET, to_yaml(recipe), saved_types(settled))


TARGET = Target(
    name="llm-compressor",
    export=export,
    formats=compressed_tensors.FORMATS,
    kinds=compressed_tensors.KINDS,
    file="recipe.yaml",
    extra="",
    usage="llmcompressor.oneshot(model=..., recipe='recipe.yaml', output_dir=...) quantizes and saves.",
)
