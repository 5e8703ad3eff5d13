"""Finds one model: a profile's file, or a data set with the name of a model in it."""

from __future__ import annotations

from evolve.datasets import SPLITS, Dataset, find_dataset
from evolve.errors import ProfileError
from evolve.fields import near_match
from evolve.profiles import ModelProfile


def find_model(spec: str) -> ModelProfile:
    """Return the model that a text names.

    Args:
        spec: A profile's file; a data set, by name or path, that has one model only; or ``DATASET:MODEL``,
            the model by its name or, where a split has one model only, by that of the split.

    Raises:
        ProfileError: There is no such data set or model, or the data set has several.
    """
    try:
        dataset = find_dataset(spec)
    except ProfileError as error:
        name, colon, model = spec.rpartition(":")
        if not colon or error.problem not in ("no such data set", "bad seed"):
            raise
        return _model_of(find_dataset(name), model, name)
    models = _models(dataset)
    if len(models) > 1:
        near = next(iter(models))
        raise ProfileError(
            "several models",
            file=spec,
            expected="one",
            found=list(models),
            cure=f"Name one of them, as in '{spec}:{near}'.",
        )
    return next(iter(models.values()))


def _models(dataset: Dataset) -> dict[str, ModelProfile]:
    return {each.name: each for _, each in dataset.splits()}


def _model_of(dataset: Dataset, name: str, spec: str) -> ModelProfile:
    models = _models(dataset)
    if name in models:
        return models[name]
    if name in SPLITS and len(dataset.split(name)) == 1:
        return dataset.split(name)[0]
    words = f"one of {', '.join(models)}" if len(models) <= 8 else f"one of its {len(models)} models"
    cure = near_match(name, tuple(models)) if len(models) <= 8 else "See 'evolve datasets show'."
    raise ProfileError("no such model", file=spec, field="model", expected=words, found=name, cure=cure)
