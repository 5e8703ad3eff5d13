"""Who is left out, who drives the search and who only helps to choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from evolve.datasets import Dataset, find_dataset, write_dataset
from evolve.profiles import ModelProfile

#: Families whose networks help to choose among the finalists, but have no part in the search: those that
#: stand so many places behind the one left out. Three folds then share one search, each leaving out
#: one of the three families that the search did not see.
_CHOOSING = (3, 6)


@dataclass(frozen=True)
class Fold:
    """One family left out.

    Attributes:
        family: Its name.
        training: Networks that drive the search.
        choosing: Networks of two more families, which with these choose among the finalists.
        left_out: Networks of the family left out; they are measured at the end, and decide nothing.
    """

    family: str
    training: tuple[ModelProfile, ...]
    choosing: tuple[ModelProfile, ...]
    left_out: tuple[ModelProfile, ...]

    @property
    def name(self) -> str:
        """What its search is called: folds that train on the same networks share it."""
        absent = {family_of(each) for each in (*self.choosing, *self.left_out)}
        return f"without-{'-'.join(sorted(absent))}"

    def written(self, folder: Path) -> Path:
        """Write the networks of the search as a data set of its own, once, and return where it is."""
        path = folder / self.name
        if not path.exists():
            write_dataset(Dataset(self.name, self.training, (), ()), path)
        return path


def family_of(profile: ModelProfile) -> str:
    """Return the family of a measured network."""
    return str(profile.provenance["trained"]["family"])


def measured_networks(dataset: str) -> list[ModelProfile]:
    """Return the profiles of all networks of a data set that `train_zoo.py` made."""
    return [profile for _, profile in find_dataset(dataset).splits()]


def folds_of(profiles: Sequence[ModelProfile]) -> list[Fold]:
    """Return one fold a family, in the order in which families first appear."""
    families = list(dict.fromkeys(map(family_of, profiles)))
    found = []
    for place, family in enumerate(families):
        choosing = {families[(place + step) % len(families)] for step in _CHOOSING} - {family}
        found.append(
            Fold(
                family,
                tuple(each for each in profiles if family_of(each) not in choosing | {family}),
                tuple(each for each in profiles if family_of(each) in choosing),
                tuple(each for each in profiles if family_of(each) == family),
            )
        )
    return found
