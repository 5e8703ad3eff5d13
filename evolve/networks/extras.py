"""The optional libraries: what says how to install a missing one."""

from __future__ import annotations

from evolve.errors import NetworkError


def require_torch() -> None:
    """Refuse, with the cure, where torch is not installed.

    Raises:
        NetworkError: Naming the command that installs it.
    """
    try:
        import torch  # noqa: F401 - only whether it is there
    except ImportError as fault:
        raise _missing("torch", "PyTorch networks", fault) from None


def require_onnx() -> None:
    """Refuse, with the cure, where onnx or onnxruntime is not installed.

    Raises:
        NetworkError: Naming the command that installs them.
    """
    try:
        import onnx  # noqa: F401 - only whether it is there
        import onnxruntime  # noqa: F401 - only whether it is there
    except ImportError as fault:
        raise _missing("onnx", "ONNX networks", fault) from None


def _missing(extra: str, what: str, fault: ImportError) -> NetworkError:
    return NetworkError(
        f"{what} need the extra {extra!r}, which is not installed ({fault})",
        cure=f"Install it: pip install 'evolve-precision[{extra}]'",
    )
