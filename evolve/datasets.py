"""Data sets: train, valid and test splits of profiles, found by path or by name."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from evolve.errors import ProfileError
from evolve.formats import PrecisionFormat
from evolve.profile_files import load_profile, save_profile
from evolve.profiles import ModelProfile
from evolve.synthetic import FAMILIES, PUBLISHED_FORMATS, generate

SPLITS = ("train", "valid", "test")
DEFAULT_DATASET = "reference"

# What `suite-shift` tests on; train and valid have all the other families.
UNSEEN_FAMILIES = ("grouped-query", "mixture-of-experts", "mobilenet", "convnext", "unet")
SUITES = ("suite", "suite-shift")
_SUITE_SIZES = {"train": 64, "valid": 32, "test": 64}

_ENDINGS = (".json", ".json.gz")
_DOCUMENTS = {".md", ".rst", ".txt"}
_LAYOUT = "folders train, valid, test with one profile a file, or files train.json, valid.json, test.json"


@dataclass(frozen=True)
class Dataset:
    """Profiles in three splits: train drives a search, valid chooses, test is scored once.

    Any split may be empty, but not all. No two profiles share a name, except that valid
    may be the same as train.

    Attributes:
        name: What reports call it.
        train: Profiles that drive selection.
        valid: Profiles that choose the champion.
        test: Profiles that select nothing.
        source: The path it was read from, or ``generated``.
        single_file: Whether one profile serves as train and valid.

    Raises:
        ProfileError: There is no profile, or two have the same name.
    """

    name: str
    train: tuple[ModelProfile, ...]
    valid: tuple[ModelProfile, ...]
    test: tuple[ModelProfile, ...]
    source: str = ""
    single_file: bool = False

    def __post_init__(self) -> None:
        for split in SPLITS:
            object.__setattr__(self, split, tuple(self.split(split)))
        labelled = [
            (split, each) for split, each in self.splits() if split != "valid" or self.valid != self.train
        ]
        _check_names(labelled, self.source or self.name)
        if not labelled:
            raise ProfileError("no profile", file=self.source or self.name, expected=_LAYOUT)

    def split(self, name: str) -> tuple[ModelProfile, ...]:
        """Return the profiles of a split.

        Raises:
            ProfileError: There is no such split.
        """
        if name not in SPLITS:
            raise ProfileError(
                "unknown split", field="split", expected=f"one of {', '.join(SPLITS)}", found=name
            )
        profiles: tuple[ModelProfile, ...] = getattr(self, name)
        return profiles

    def splits(self) -> Iterator[tuple[str, ModelProfile]]:
        """Iterate over all profiles, each with its split: train, then valid, then test."""
        for split in SPLITS:
            for profile in self.split(split):
                yield split, profile

    @property
    def content_hash(self) -> str:
        """SHA-256 of the profiles in their splits and order, whatever the data set is called."""
        lines = (f"{split} {profile.content_hash}\n" for split, profile in self.splits())
        return hashlib.sha256("".join(lines).encode()).hexdigest()


def find_dataset(spec: str | os.PathLike[str] | None = None) -> Dataset:
    """Find a data set by path or by name.

    Args:
        spec: A folder, a ``.json`` file (which serves as train and valid), the name of a
            folder in one of ``dataset_folders``, or a generated suite with an optional seed
            (``suite``, ``suite-shift:7``). A bare name is looked up before it is taken as a
            path. The default is ``reference``.

    Raises:
        ProfileError: There is no such data set, or it is not valid.
    """
    text = DEFAULT_DATASET if spec is None else os.fspath(spec)
    try:
        found = _find_by_name(text) if isinstance(spec, str | None) else None
        return found or _find_by_path(text)
    except OSError as fault:
        raise ProfileError(f"cannot be read ({fault.strerror})", file=text) from None


def available_datasets() -> list[tuple[str, str]]:
    """List the data sets known by name, each with its location (``generated`` for suites).

    Those of the working directory come first and hide later ones of the same name.
    """
    found: dict[str, str] = {}
    for folder in dataset_folders():
        for path in _visible(folder):
            if path.is_dir() and any(
                (path / name).exists() for split in SPLITS for name in (split, f"{split}.json")
            ):
                found.setdefault(path.name, str(path))
    for suite in SUITES:
        found.setdefault(suite, "generated")
    return list(found.items())


def dataset_folders() -> tuple[Path, ...]:
    """Return the folders that names are looked up in: the working directory's, then the shipped one."""
    package = Path(__file__).resolve().parent
    shipped = package / "shipped" / "datasets"
    # In a checkout, the shipped data sets are those at the top of the repository.
    candidates = (Path("datasets").absolute(), shipped if shipped.is_dir() else package.parent / "datasets")
    folders = {path.resolve(): path for path in reversed(candidates) if path.is_dir()}
    return tuple(reversed(folders.values()))


def write_dataset(dataset: Dataset, folder: str | os.PathLike[str]) -> None:
    """Write the splits as folders with one profile a file; the folder appears whole or not at all.

    Reading it back gives the same profiles in the same order.

    Raises:
        ProfileError: The folder exists and is not empty, or cannot be written.
    """
    target = Path(folder).resolve()
    aside = target.parent / f".{target.name}.{os.getpid()}.partial"
    try:
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise ProfileError("exists already", file=target, expected="a new or empty folder")
        for split in SPLITS:
            for position, profile in enumerate(dataset.split(split)):
                (aside / split).mkdir(parents=True, exist_ok=True)
                # Numbered to keep their order; a model's name may hold anything.
                slug = re.sub(r"[^A-Za-z0-9._-]+", "-", profile.name)[:80]
                save_profile(profile, aside / split / f"{position:04d}-{slug}.json")
        if target.exists():
            target.rmdir()
        aside.rename(target)
    except OSError as fault:
        raise ProfileError(f"cannot be written ({fault.strerror})", file=target) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _find_by_name(text: str) -> Dataset | None:
    if text in ("", "..") or Path(text).name != text or text.endswith(".json"):
        return None
    suite, colon, seed = text.partition(":")
    if suite in SUITES and colon:
        return _generate_suite(suite, seed)
    for folder in dataset_folders():
        if (folder / text).is_dir():
            return _load_folder(folder / text)
    return _generate_suite(suite, None) if suite in SUITES else None


def _find_by_path(text: str) -> Dataset:
    path = Path(text)
    if text and path.is_dir():
        return _load_folder(path)
    if path.name.endswith(_ENDINGS):
        profile = load_profile(path)
        return Dataset(_stem(path), (profile,), (profile,), (), text, single_file=True)
    if text and path.exists():
        raise ProfileError("not a profile", file=path, expected="a folder or a .json file")
    names = [name for name, _ in available_datasets()]
    near = get_close_matches(text.partition(":")[0], names, 1)
    cure = f"Did you mean {near[0]!r}?" if near else None
    words = f"a folder, a .json file or one of {', '.join(names)}"
    raise ProfileError("no such data set", field="dataset", expected=words, found=text, cure=cure)


def _generate_suite(suite: str, seed_text: str | None) -> Dataset:
    if seed_text is not None and not re.fullmatch("[0-9]{1,18}", seed_text):
        words = "a whole number, at least 0"
        raise ProfileError("bad seed", field=suite, expected=words, found=seed_text, cure=f"Write {suite}:7.")
    seed = int(seed_text or 0)
    families = dict.fromkeys(SPLITS, tuple(FAMILIES))
    if suite == "suite-shift":
        seen = tuple(family for family in FAMILIES if family not in UNSEEN_FAMILIES)
        families = {"train": seen, "valid": seen, "test": UNSEEN_FAMILIES}
    name = suite if seed_text is None else f"{suite}:{seed}"
    return generate_dataset(name, _SUITE_SIZES, seed, families)


def generate_dataset(
    name: str,
    sizes: Mapping[str, int],
    seed: int,
    families: Mapping[str, Sequence[str]],
    formats: Sequence[PrecisionFormat] = PUBLISHED_FORMATS,
) -> Dataset:
    """Generate synthetic models for every split.

    Args:
        name: What reports call the data set.
        sizes: Models of each split.
        seed: A whole number, at least 0.
        families: For each split, names in `synthetic.FAMILIES`.
        formats: K formats by non-decreasing bits.

    Raises:
        ProfileError: A family is unknown, or there is no model at all.
    """
    profiles: dict[str, tuple[ModelProfile, ...]] = {}
    start = 0
    for split in SPLITS:
        profiles[split] = generate(sizes[split], seed, families[split], tuple(formats), start)
        start += sizes[split]
    return Dataset(name, profiles["train"], profiles["valid"], profiles["test"], "generated")


def _load_folder(folder: Path) -> Dataset:
    folders = [split for split in SPLITS if (folder / split).is_dir()]
    files = [split for split in SPLITS if (folder / f"{split}.json").is_file()]
    if folders and files:
        words = f"folder {folders[0]} and file {files[0]}.json"
        raise ProfileError("two layouts mixed", file=folder, expected=_LAYOUT, found=words)
    _check_misspelt(folder, folders or files)
    if not folders and not files:
        raise ProfileError(
            "no splits", file=folder, expected=_LAYOUT, found=[each.name for each in _visible(folder)]
        )
    paths = {split: _profile_files(folder / split) for split in folders}
    paths |= {split: [folder / f"{split}.json"] for split in files}
    loaded = {split: [(str(path), load_profile(path)) for path in paths.get(split, [])] for split in SPLITS}
    profiles = {split: tuple(profile for _, profile in pairs) for split, pairs in loaded.items()}
    train, valid, test = (profiles[split] for split in SPLITS)
    same = train == valid
    # Checked here and not only by Dataset, for here the files are known.
    _check_names([*loaded["train"], *([] if same else loaded["valid"]), *loaded["test"]], str(folder))
    name = folder.resolve().name
    return Dataset(name, train, valid, test, str(folder), single_file=same and len(train) == 1)


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".json")


def _profile_files(folder: Path) -> list[Path]:
    paths = [path for path in _visible(folder) if path.suffix not in _DOCUMENTS and path.name != "LICENSE"]
    for path in paths:
        if not path.name.endswith(_ENDINGS) or path.is_dir():
            found = f"{'folder' if path.is_dir() else 'file'} {path.name}"
            raise ProfileError("not a profile", file=path, expected="only .json files here", found=found)
    return paths


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as fault:
        raise ProfileError(f"cannot be read ({fault.strerror})", file=folder) from None


def _check_misspelt(folder: Path, present: Sequence[str]) -> None:
    """Refuse `validation` where there is no `valid`: it would be left out in silence."""
    missing = [split for split in SPLITS if split not in present]
    for path in _visible(folder):
        stem = path.stem if path.suffix == ".json" else path.name
        near = get_close_matches(stem, missing, 1)
        if near and stem not in SPLITS and (path.is_dir() or path.suffix == ".json"):
            cure = f"Did you mean {near[0]!r}?"
            raise ProfileError(
                "unknown split", file=path, expected=f"one of {', '.join(SPLITS)}", found=stem, cure=cure
            )


def _check_names(labelled: Iterable[tuple[str, ModelProfile]], file: str) -> None:
    seen: dict[str, str] = {}
    for label, profile in labelled:
        if profile.name in seen:
            cure = f"It is in {seen[profile.name]} and in {label}."
            words = "another name for each profile"
            raise ProfileError(
                "name given twice", file=file, field="name", expected=words, found=profile.name, cure=cure
            )
        seen[profile.name] = label
