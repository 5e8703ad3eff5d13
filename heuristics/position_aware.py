"""Formats by position alone, for models with any set of formats."""

from evolve.heuristics import heuristic, linear, log


@heuristic(
    role="baseline",
    source="ericksoa/agentic-evolve quantization-bit-alloc, its tenths at both ends as one smooth curve",
    parameters=[
        linear("ends", 16.0, 4.0, 32.0),
        linear("middle", 6.0, 2.0, 16.0),
        log("sharpness", 7.25, 0.5, 32.0),
    ],
)
def allocate(model, p):
    """Layers get the narrowest format with the bits their position asks for: most at both ends."""
    closeness = 1.0 - 2.0 * model.edge_distance
    needed = p.middle + (p.ends - p.middle) * closeness**p.sharpness
    return model.narrowest(model.bits >= needed)
