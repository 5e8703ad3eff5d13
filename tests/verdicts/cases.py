"""Rules and models that verdicts are tried on."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from evolve.candidates import Candidate
from evolve.datasets import Dataset, generate_dataset
from evolve.plugins import load_catalogue
from evolve.synthetic import FAMILIES

ROOT = Path(__file__).parents[2]
CATALOGUE = load_catalogue([ROOT / "heuristics"])
TEMPLATES = CATALOGUE.templates
REFERENCE = str(ROOT / "datasets" / "reference")


def ladder(*clauses: tuple[str, str], otherwise: str = "FP16", **parameters: float) -> Candidate:
    """Return a decision list."""
    found = Candidate("ladder", (("clauses", clauses), ("otherwise", otherwise)), tuple(parameters.items()))
    template = TEMPLATES["ladder"]
    return template.write(template.read(found))


@cache
def small_suite(train: int = 6, valid: int = 4, test: int = 6, seed: int = 0) -> Dataset:
    """Return a few synthetic models."""
    families = dict.fromkeys(("train", "valid", "test"), tuple(FAMILIES))
    return generate_dataset("small", {"train": train, "valid": valid, "test": test}, seed, families)


SENSITIVE = 'model.sensitivity("INT8") > p.sensitivity_int8'
#: A Lagrangian with one global price, which reads the whole sensitivity table.
PRICED = Candidate(
    "cheapest",
    (("cost", "model.param_fraction * model.bits + p.weight * model.loss"),),
    (("weight", 200.0),),
)
#: Puts in INT8 what loses little by it, at a budget a layer.
THRESHOLD = ladder((SENSITIVE, "FP16"), otherwise="INT8", sensitivity_int8=2e-4)
