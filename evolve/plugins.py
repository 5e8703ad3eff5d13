"""Finds heuristics: plugin files in folders named ``heuristics`` and in other packages.

Dropping a file into ``heuristics/`` of the working directory is all it takes; packages name a
module or a folder of plugins under the entry-point group ``evolve.heuristics``. A broken plugin
is remembered with its reason and never stops the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from evolve.errors import PluginError
from evolve.heuristics import ROLES
from evolve.plugin_files import Heuristic, general_templates, load_plugin, plugin_name
from evolve.templates import Template

ENTRY_POINTS = "evolve.heuristics"
_PACKAGE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Broken:
    """A plugin that could not be loaded, and why."""

    name: str
    file: str
    error: PluginError


@dataclass(frozen=True)
class Catalogue:
    """All heuristics and code templates that were found.

    Attributes:
        heuristics: By name, in alphabetical order.
        templates: By name: the general ones first, then those that plugins bring.
        broken: Plugins that were left out.
    """

    heuristics: Mapping[str, Heuristic]
    templates: Mapping[str, Template]
    broken: tuple[Broken, ...]

    def get(self, name: str) -> Heuristic:
        """Return a heuristic by name.

        Raises:
            PluginError: It is broken, or there is none of that name.
        """
        if name in self.heuristics:
            return self.heuristics[name]
        for each in self.broken:
            if each.name == name:
                raise each.error
        near = get_close_matches(name, self.heuristics, n=1)
        raise PluginError(
            "unknown heuristic",
            found=name,
            expected="the name of a heuristic",
            cure=f"Did you mean {near[0]}?" if near else "See 'evolve heuristics list'.",
        )

    def select(self, start_from: Iterable[str]) -> tuple[Heuristic, ...]:
        """Return heuristics by role (``baseline``, …), by name, or ``all``, each once."""
        chosen: dict[str, Heuristic] = {}
        for word in start_from:
            if word == "all":
                chosen |= self.heuristics
            elif word in ROLES:
                chosen |= {name: each for name, each in self.heuristics.items() if each.role == word}
            else:
                chosen[word] = self.get(word)
        return tuple(chosen.values())


def find_heuristics(catalogue: Catalogue, names: Iterable[str]) -> tuple[Heuristic, ...]:
    """Return heuristics by name or by the path of a plugin file; all of them where no name is given.

    Raises:
        PluginError: One of them is broken or unknown.
    """
    listed = tuple(names)
    if not listed:
        return tuple(catalogue.heuristics.values())
    return tuple(
        load_plugin(Path(name)) if name.endswith((".py", ".j2")) else catalogue.get(name) for name in listed
    )


def heuristic_folders() -> tuple[Path, ...]:
    """Return the folders searched, those that come on top last: shipped, then the working directory's."""
    shipped = _PACKAGE / "shipped" / "heuristics"
    if not shipped.is_dir():
        shipped = _PACKAGE.parent / "heuristics"
    here = Path.cwd() / "heuristics"
    folders = [each for each in (shipped, here) if each.is_dir()]
    return tuple(dict.fromkeys(each.resolve() for each in folders))


def load_catalogue(folders: Iterable[Path] | None = None) -> Catalogue:
    """Load every plugin of the folders (default `heuristic_folders`) and of the entry points."""
    templates: dict[str, Template] = dict(general_templates())
    heuristics: dict[str, Heuristic] = {}
    broken: dict[str, Broken] = {}
    files = []
    for point in sorted(metadata.entry_points(group=ENTRY_POINTS), key=lambda each: each.name):
        # A package names a module or a folder of plugins; its files are loaded like any others.
        try:
            files += _files_of(_entry_point_location(point))
        except PluginError as error:
            broken[point.name] = Broken(point.name, point.value, error)
    for folder in heuristic_folders() if folders is None else folders:
        files += _files_of(folder)
    for file in files:
        name = plugin_name(file)
        heuristics.pop(name, None)
        broken.pop(name, None)
        try:
            heuristics[name] = load_plugin(file)
        except PluginError as error:
            broken[name] = Broken(name, str(file), error)
    templates |= {each.template.name: each.template for each in heuristics.values()}
    ordered = {name: heuristics[name] for name in sorted(heuristics)}
    return Catalogue(ordered, templates, tuple(broken[name] for name in sorted(broken)))


def _entry_point_location(point: metadata.EntryPoint) -> Path:
    try:
        # Finding pkg.module imports pkg, which may fail in any way.
        spec = find_spec(point.module)
    except Exception as error:
        raise PluginError(
            f"cannot be imported: {type(error).__name__}: {error}",
            file=f"entry point {point.name}",
            found=point.value,
        ) from error
    locations = [] if spec is None else [*(spec.submodule_search_locations or ()), spec.origin]
    for location in locations:
        if location and Path(location).exists():
            return Path(location)
    raise PluginError(
        "there is no such module or folder",
        file=f"entry point {point.name}",
        expected="a module or a package of plugins",
        found=point.value,
    )


def _files_of(location: Path) -> list[Path]:
    if location.is_file():
        return [location]
    found = (each for each in location.iterdir() if each.name.endswith((".py", ".py.j2")))
    return sorted(each for each in found if not each.name.startswith(("_", ".")))
