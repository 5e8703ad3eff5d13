"""Writes plugins to start from, of every kind: commented, working, and without faults."""

from __future__ import annotations

import keyword
from pathlib import Path
from typing import Literal, get_args

from evolve.errors import PluginError
from evolve.heuristics import ROLES
from evolve.plugin_files import general_templates
from evolve.plugins import heuristic_folders, load_catalogue
from evolve.search import STRATEGIES
from evolve.search.base import OPERATORS

Kind = Literal["function", "code", "template", "operator", "strategy"]

_SKELETONS = Path(__file__).resolve().parent / "skeletons"
_ENDINGS: dict[Kind, tuple[str, str]] = {
    "function": (".py", "plugin.py.txt"),
    "code": (".py.j2", "plugin.j2.txt"),
    "template": (".py.j2", "template.j2.txt"),
    "operator": (".py", "operator.py.txt"),
    "strategy": (".py", "strategy.py.txt"),
}
#: What a name may mean already: to the flags of a run, or in a lineage.
_TAKEN = (*ROLES, "all", "seed", "default", *OPERATORS, *STRATEGIES)


def new_plugin(name: str, folder: Path, kind: Kind = "function") -> Path:
    """Write a plugin to start from: commented, working, and without faults.

    Args:
        name: The plugin's name.
        folder: Where to write it; made if missing.
        kind: ``function`` for a rule as a Python function, ``code`` for one as a code template,
            ``template`` for a form that other rules can fill, ``operator`` or ``strategy``.

    Returns:
        The new file.

    Raises:
        PluginError: The name cannot be used or is taken, or the file cannot be written.
    """
    if kind not in _ENDINGS:
        expected = f"one of {', '.join(get_args(Kind))}"
        raise PluginError("unknown kind", field="kind", expected=expected, found=kind)
    if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
        expected = "a Python identifier that is no keyword and does not start with an underscore"
        raise PluginError("bad name", field="name", expected=expected, found=name)
    if name in (*_TAKEN, *general_templates()):
        expected = "another name than a role's, a general template's, an operator's or a strategy's"
        raise PluginError("this name means something else", field="name", expected=expected, found=name)
    for ending in (".py", ".py.j2"):
        if (folder / f"{name}{ending}").exists():
            raise PluginError("exists already", file=folder / f"{name}{ending}", cure="Choose another name.")
    catalogue = load_catalogue([*heuristic_folders(), *([folder] if folder.is_dir() else [])])
    taken = {each.name: each.file for each in catalogue.heuristics.values()}
    taken |= {each.name: each.file for each in (*catalogue.broken, *catalogue.extensions.values())}
    if name in taken:
        raise PluginError(f"there is a plugin {name} already", file=taken[name], cure="Choose another name.")
    ending, skeleton = _ENDINGS[kind]
    file = folder / f"{name}{ending}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with file.open("x", encoding="utf-8") as writer:
            writer.write((_SKELETONS / skeleton).read_text(encoding="utf-8"))
    except OSError as error:
        raise PluginError(f"cannot be written ({error.strerror})", file=file) from error
    return file
