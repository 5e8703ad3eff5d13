"""Finds plugins: files in folders named ``heuristics`` and in other packages.

Dropping a file into ``heuristics/`` of the working directory is all it takes; packages name a
module or a folder of plugins under the entry-point group ``evolve.heuristics``. A plugin is a rule,
a code template, an operator or a search strategy, as the file itself says. A broken plugin is
remembered with its reason and never stops the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from evolve.errors import PluginError
from evolve.extension_files import extension_kind, load_extension
from evolve.extensions import Extension, OperatorPlugin, StrategyPlugin
from evolve.heuristics import ROLES
from evolve.plugin_files import Heuristic, general_templates, load_plugin, plugin_name, plugin_text
from evolve.templates import Template

ENTRY_POINTS = "evolve.heuristics"
_PACKAGE = Path(__file__).resolve().parent

Plugin = Heuristic | Extension


_A = {"operator": "an operator", "strategy": "a strategy"}
_FLAGS = {"operator": "operators", "strategy": "strategy"}


@dataclass(frozen=True)
class Broken:
    """A plugin that could not be loaded, and why."""

    name: str
    file: str
    error: PluginError


@dataclass(frozen=True)
class Catalogue:
    """All heuristics, code templates, operators and strategies that were found.

    Attributes:
        heuristics: By name, in alphabetical order.
        templates: By name: the general ones first, then those that plugins bring.
        broken: Plugins that were left out.
        extensions: Operators and strategies from plugins, by name, in alphabetical order.
    """

    heuristics: Mapping[str, Heuristic]
    templates: Mapping[str, Template]
    broken: tuple[Broken, ...]
    extensions: Mapping[str, Extension] = field(default_factory=dict)

    @property
    def operators(self) -> dict[str, OperatorPlugin]:
        """Operators from plugins, by name."""
        return {name: each for name, each in self.extensions.items() if isinstance(each, OperatorPlugin)}

    @property
    def strategies(self) -> dict[str, StrategyPlugin]:
        """Strategies from plugins, by name."""
        return {name: each for name, each in self.extensions.items() if isinstance(each, StrategyPlugin)}

    def check_not_broken(self, name: str) -> None:
        """Raise the `PluginError` of a plugin of that name that was left out, if there is one."""
        for each in self.broken:
            if each.name == name:
                raise each.error

    def get(self, name: str) -> Heuristic:
        """Return a heuristic by name.

        Raises:
            PluginError: It is broken, or there is none of that name.
        """
        if name in self.heuristics:
            return self.heuristics[name]
        self.check_not_broken(name)
        if name in self.extensions:
            raise PluginError(
                f"{name} is no heuristic but {_A[self.extensions[name].kind]}",
                file=self.extensions[name].file,
                cure=f"Name it by --{_FLAGS[self.extensions[name].kind]}.",
            )
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
        PluginError: One of them is broken, unknown or no heuristic.
    """
    listed = tuple(names)
    if not listed:
        return tuple(catalogue.heuristics.values())
    found = [(name, find_plugin(catalogue, name)) for name in listed]
    # A name that is no heuristic's is refused here, with what it is instead.
    return tuple(each if isinstance(each, Heuristic) else catalogue.get(name) for name, each in found)


def find_plugin(catalogue: Catalogue, name: str) -> Plugin:
    """Return a plugin of any kind by its name or by the path of its file.

    Raises:
        PluginError: It is broken or unknown.
    """
    if name.endswith((".py", ".j2")):
        return load_any(Path(name), catalogue.templates)
    return catalogue.extensions[name] if name in catalogue.extensions else catalogue.get(name)


def load_any(file: Path, templates: Mapping[str, Template] | None = None) -> Plugin:
    """Load a plugin of any kind.

    Args:
        file: The plugin.
        templates: The code templates that it may fill; the general ones where none are given.

    Raises:
        PluginError: It cannot be read or does not keep the contract; names file and line.
    """
    text = plugin_text(file)
    if not file.name.endswith(".j2") and extension_kind(text):
        return load_extension(file, plugin_name(file), text)
    return load_plugin(file, templates)


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
    broken: dict[str, Broken] = {}
    files: list[Path] = []
    for point in sorted(metadata.entry_points(group=ENTRY_POINTS), key=lambda each: each.name):
        # A package names a module or a folder of plugins; its files are loaded like any others.
        try:
            files += _files_of(_entry_point_location(point))
        except PluginError as error:
            broken[point.name] = Broken(point.name, point.value, error)
    for folder in heuristic_folders() if folders is None else folders:
        files += _files_of(folder)
    # The last of a name hides those before it.
    by_name = {plugin_name(file): file for file in files}
    broken = {name: each for name, each in broken.items() if name not in by_name}
    plugins: dict[str, Plugin] = {}
    templates: dict[str, Template] = dict(general_templates())
    # Twice: a plugin may fill a template that another one brings.
    for _ in range(2):
        for name in sorted(by_name):
            if name not in plugins:
                try:
                    plugins[name] = load_any(by_name[name], templates)
                    broken.pop(name, None)
                except PluginError as error:
                    broken[name] = Broken(name, str(by_name[name]), error)
        heuristics = {name: each for name, each in plugins.items() if isinstance(each, Heuristic)}
        brought = {each.template.name: each.template for each in heuristics.values()}
        if brought.keys() <= templates.keys():
            break
        templates |= {name: brought[name] for name in sorted(brought)}
    ordered = {name: heuristics[name] for name in sorted(heuristics)}
    extensions = {name: plugins[name] for name in sorted(plugins) if name not in heuristics}
    return Catalogue(
        ordered,
        templates,
        tuple(broken[name] for name in sorted(broken)),
        {name: each for name, each in extensions.items() if not isinstance(each, Heuristic)},
    )


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
