"""Formats by type first, then by sensitivity, with a boost at both ends."""

from evolve.heuristics import heuristic, linear


@heuristic(
    role="baseline",
    source="ericksoa/agentic-evolve quantization-bit-alloc, the rule an expert would write",
    parameters=[
        linear("edge", 0.1, 0.0, 0.5),
        linear("boost", 0.2, 0.0, 1.0),
        linear("high", 0.7, 0.0, 1.0),
        linear("low", 0.3, 0.0, 1.0),
    ],
)
def allocate(model, p):
    """Protected types are FP16; gradient sensitivity, raised at both ends, decides the rest."""
    protected = model.is_type("Embedding", "LayerNorm", "Classifier")
    sensitivity = model.gradient_sensitivity + p.boost * (model.edge_distance < p.edge)
    return model.select(
        (protected, "FP16"),
        (sensitivity > p.high, "FP16"),
        (sensitivity > p.low, "INT8"),
        otherwise="INT4",
    )
