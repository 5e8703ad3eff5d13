"""Networks by what people have: ``MODULE:FUNCTION``, or an ONNX file and its data."""

from __future__ import annotations

import importlib.util
import os
import pkgutil
import sys
import traceback
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evolve.errors import InputError, NetworkError
from evolve.networks.extras import require_onnx, require_torch
from evolve.networks.network import Network

_FORM = "MODULE:FUNCTION, FILE.py:FUNCTION or a file that ends in .onnx"


def load_network(
    source: str,
    data: str | os.PathLike[str] | None = None,
    task: str | None = None,
    batch_size: int = 64,
) -> Network:
    """Load a network with the data it is measured on.

    Args:
        source: ``MODULE:FUNCTION`` or ``FILE.py:FUNCTION``, a function without arguments that returns a
            PyTorch model and a loader of batches, and if it likes a loader of held-out ones; or a
            `TorchNetwork`. Modules are found in the working directory too. Or the path of an ONNX model.
        data: The ``.npz`` file of an ONNX model's data.
        task: One of `evolve.networks.metrics.TASKS`; found by the labels where not given.
        batch_size: Samples a batch of an ONNX model.

    Raises:
        NetworkError: Something is missing or returns the wrong thing; the message has the cure.
    """
    if Path(source).suffix == ".onnx":
        return _load_onnx(source, data, task, batch_size)
    network: Network = _from_result(_result_of(source, data), source, task)[0]
    return network


@dataclass(frozen=True, eq=False)
class Networks:
    """One network on two sets of data.

    Attributes:
        calibration: On what it may be measured again and again to choose something; None if not given.
        held_out: On what it is measured to say how good that is; None if not given.
    """

    calibration: Network | None
    held_out: Network | None

    @property
    def judging(self) -> Network:
        """The network on the held-out data, or on what there is."""
        network = self.calibration if self.held_out is None else self.held_out
        assert network is not None
        return network


def load_networks(
    source: str,
    data: str | os.PathLike[str] | None = None,
    calibration: str | os.PathLike[str] | None = None,
    task: str | None = None,
    batch_size: int = 64,
) -> Networks:
    """Load a network with its calibration data and held-out data.

    Args:
        source: As for `load_network`; of a PyTorch model, held-out data are the third that the function
            returns.
        data: The ``.npz`` file of an ONNX model's held-out data.
        calibration: The ``.npz`` file of its calibration data, which only a search needs.
        task: As for `load_network`.
        batch_size: Samples a batch of an ONNX model.

    Raises:
        NetworkError: Something is missing or returns the wrong thing; the message has the cure.
    """
    if Path(source).suffix != ".onnx":
        network, rest = _from_result(_result_of(source, data or calibration), source, task)
        return Networks(network, network.on(rest[0]) if rest else None)
    held_out = _load_onnx(source, data, task, batch_size)
    other = None if calibration is None else _load_onnx(source, calibration, held_out.task, batch_size)
    return Networks(other, held_out)


def load_to_write(source: str) -> Network:
    """Load a network to read and write its weights; an ONNX model needs no data for that.

    Args:
        source: As for `load_network`.

    Raises:
        NetworkError: Something is missing or returns the wrong thing; the message has the cure.
    """
    if Path(source).suffix != ".onnx":
        return load_network(source)
    if not Path(source).is_file():
        raise NetworkError("no such file", file=source, expected="an ONNX model")
    require_onnx()
    from evolve.networks.onnx_network import OnnxNetwork

    return OnnxNetwork(source, None)


def _result_of(source: str, data: str | os.PathLike[str] | None) -> Any:
    """Return what the function that a source names returns."""
    module, colon, function = source.rpartition(":")
    if not colon or not module or not function:
        raise NetworkError("not a network", field="network", expected=_FORM, found=source)
    if data is not None:
        raise NetworkError(
            "data are given twice", field="data", cure=f"{source} returns its own: leave --data out."
        )
    require_torch()
    return _call(_find(source, module, function), source)


def _load_onnx(
    source: str, data: str | os.PathLike[str] | None, task: str | None, batch_size: int
) -> Network:
    if batch_size < 1:
        raise NetworkError("bad batch size", field="batch_size", expected="at least 1", found=batch_size)
    if not Path(source).is_file():
        raise NetworkError("no such file", file=source, expected="an ONNX model")
    if data is None:
        raise NetworkError(
            "no data",
            file=source,
            field="data",
            cure="Name a .npz file with an array for each input of the graph, and labels: --data FILE.npz",
        )
    require_onnx()
    arrays = _read_arrays(Path(data))
    from evolve.networks.onnx_network import OnnxNetwork

    return OnnxNetwork(source, arrays, task, batch_size)


def _read_arrays(path: Path) -> Mapping[str, NDArray[Any]]:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            raise NetworkError("one array, not several by name", file=path, cure="Use numpy.savez.")
        with loaded:
            return {name: loaded[name] for name in loaded.files}
    except FileNotFoundError:
        raise NetworkError("no such file", file=path, expected="a .npz file") from None
    except (OSError, ValueError, zipfile.BadZipFile) as fault:
        raise NetworkError(f"cannot be read ({fault})", file=path, expected="a .npz file") from None


def _find(source: str, module: str, function: str) -> Any:
    """Return what a source names."""
    file = Path(module) if module.endswith(".py") else None
    if file is not None and not file.is_file():
        raise NetworkError("no such file", file=module, expected="a Python file")
    # As `python -m` does: what lies in the working directory can be named.
    folder = str(Path.cwd() if file is None else file.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        if file is not None:
            return getattr(_run_file(file), function)
        return pkgutil.resolve_name(source)
    except ModuleNotFoundError as fault:
        missing = (fault.name or "").split(".")[0]
        if file is None and missing == module.split(".")[0]:
            words = "a module that Python finds from here"
            raise NetworkError(
                "no such module",
                field="network",
                expected=words,
                found=module,
                cure="Run it from the module's folder, or write FILE.py:FUNCTION.",
            ) from None
        raise NetworkError(
            f"cannot be imported: {fault}", file=source, cure=f"Install what {missing!r} is part of."
        ) from fault
    except AttributeError as fault:
        if not str(fault).endswith(f"has no attribute {function!r}"):
            raise _failure("cannot be imported", source, fault) from fault
        words = f"a function in {module}"
        raise NetworkError("no such function", field="network", expected=words, found=function) from None
    except Exception as fault:
        raise _failure("cannot be imported", source, fault) from fault


def _run_file(file: Path) -> ModuleType:
    """Import a file under its own name, whatever else has that name."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Pickles and worker processes look modules up by name.
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


def _call(function: Any, source: str) -> Any:
    if not callable(function):
        raise NetworkError(
            "not a function", file=source, expected="a function without arguments", found=function
        )
    try:
        return function()
    except InputError:
        raise
    except Exception as fault:
        raise _failure("the function failed", source, fault) from fault


def _from_result(result: Any, source: str, task: str | None) -> tuple[Any, Sequence[Any]]:
    """Return the network on its first data, and the loader of held-out data if there is one."""
    from evolve.networks.torch_network import TorchNetwork

    if isinstance(result, TorchNetwork):
        if task not in (None, result.task):
            raise NetworkError(
                "task given twice", field="task", expected=f"{result.task}, as {source} has it", found=task
            )
        return result, ()
    if not isinstance(result, tuple | list) or len(result) not in (2, 3):
        found = type(result).__name__
        if isinstance(result, tuple | list):
            found = f"{found} of {len(result)}"
        raise NetworkError(
            "the function returned the wrong thing",
            file=source,
            expected="a model and a loader, or two: (torch.nn.Module, an iterable of batches, held-out ones)",
            found=found,
        )
    return TorchNetwork(result[0], result[1], task), result[2:]


def _failure(problem: str, source: str, fault: Exception) -> NetworkError:
    where = traceback.extract_tb(fault.__traceback__)
    own = [each for each in where if "importlib" not in each.filename and "evolve" not in each.filename]
    place = f"{Path(own[-1].filename).name}, line {own[-1].lineno}" if own else None
    return NetworkError(f"{problem}: {type(fault).__name__}: {fault}", file=source, place=place)
