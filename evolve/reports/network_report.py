"""The report of one's own network: what an allocation measures on it, or what its profile says.

A folder with ``report.md`` and pictures; the same measurements give the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from evolve.allocations import names_of
from evolve.errors import NetworkError
from evolve.joint import additive_range
from evolve.profiles import ModelProfile
from evolve.reports.markdown import MISSING, figure, render
from evolve.reports.network_facts import FormatMap, NetworkLayers, SumGroup, SumPanel, layers_of
from evolve.reports.networks import median_rows

PAGE = "report.md"
LAYERS_FIGURE, BOXES_FIGURE, SUMS_FIGURE = "layers.svg", "sensitivity.svg", "predicted_measured.svg"
_METRICS = ("accuracy", "loss", "perplexity")
#: The most sensitive layers that the page of a profile shows unfolded.
_SHOWN = 10
#: From here on metrics are shown in three digits.
_HUGE = 1e6
_HELD_OUT, _CALIBRATION = "held-out data", "calibration data"


def check_report_folder(folder: Path, overwrite: bool = False) -> None:
    """Refuse a folder that holds something, before anything is measured.

    Raises:
        NetworkError: It is a file, or holds something and may not be overwritten.
    """
    if folder.exists() and not folder.is_dir():
        raise NetworkError("not a folder", file=folder, field="--report", cure="Name a new folder.")
    if not folder.parent.is_dir():
        raise NetworkError("no such folder", file=folder.parent, field="--report", cure="Make it first.")
    if folder.is_dir() and not overwrite and any(folder.iterdir()):
        raise NetworkError(
            "holds something already", file=folder, field="--report", cure="Name a new folder, or empty this."
        )


def write_network_report(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the files of a report, each whole or not at all; what else is in the folder stays.

    Raises:
        NetworkError: A file cannot be written.
    """
    try:
        folder.mkdir(exist_ok=True)
        for name, content in files.items():
            aside = folder / f".{name}.{os.getpid()}.partial"
            aside.write_bytes(content)
            aside.replace(folder / name)
    except OSError as fault:
        raise NetworkError(f"cannot be written ({fault.strerror})", file=folder, field="--report") from None


def profile_report(profile: ModelProfile) -> dict[str, bytes]:
    """Return the files of a profile's report: page and pictures."""
    layers = layers_of(profile)
    assert layers.divergence is not None
    order = np.argsort(-layers.divergence[:, 0], kind="stable").tolist()
    context = {
        "layers": layers,
        "formats": [
            (each.name, each.bits, float(total))
            for each, total in zip(profile.formats, profile.loss.sum(axis=0), strict=True)
        ],
        "worst": order[:_SHOWN],
        "range_end": additive_range(layers.kinds),
        "ties": [[names_of(profile)[at] for at in group] for group in profile.tied_layers],
        "medians": median_rows([layers]),
        "provenance": _provenance(profile),
        "layers_figure": LAYERS_FIGURE,
        "boxes_figure": BOXES_FIGURE,
    }
    return {PAGE: render("network_profile.md.j2", context).encode(), **_layer_pictures(layers, ())}


def check_report(
    found: Mapping[str, Any], layers: NetworkLayers, provenance: Mapping[str, str] | None = None
) -> dict[str, bytes]:
    """Return the files of the report of a check: page and pictures.

    Args:
        found: The JSON form of what was measured, from `evolve.networks.handing_out.Verdict.to_json`.
        layers: The network's layers, from its profile if there is one.
        provenance: What the profile was measured on, in words.
    """
    rows = [found["unchanged"], *found["measured"]]
    panel = _sums(found, layers)
    maps = [
        FormatMap(
            each["label"] + (", handed out" if each["label"] == found["handed_out"] else ""), each["formats"]
        )
        for each in found["measured"]
        if len(set(each["formats"].values())) > 1 or each["label"] in ("allocation", "refined")
    ]
    context = {
        "found": found,
        "layers": layers,
        "maps": maps,
        "metrics": [name for name in _METRICS if rows[0][name] is not None],
        "rows": rows,
        "interval": _interval,
        "sums": _sum_rows(panel),
        "range_end": additive_range(layers.kinds),
        "medians": median_rows([layers]) if layers.divergence is not None else None,
        "provenance": dict(provenance or {}),
        "layers_figure": LAYERS_FIGURE,
        "boxes_figure": BOXES_FIGURE,
        "sums_figure": SUMS_FIGURE,
    }
    files = {PAGE: render("network_check.md.j2", context).encode(), **_layer_pictures(layers, maps)}
    if panel is not None:
        from evolve.reports.sum_plots import draw_sums

        files[SUMS_FIGURE] = draw_sums([panel])
    return files


def provenance_words(profile: ModelProfile) -> dict[str, str]:
    """Return what a profile says of how it was measured, for people."""
    return dict(_provenance(profile))


def _layer_pictures(layers: NetworkLayers, maps: Sequence[FormatMap]) -> dict[str, bytes]:
    # Only here, for matplotlib takes longer to load than everything else.
    from evolve.reports.box_plots import draw_boxes
    from evolve.reports.layer_picture import draw_layers

    boxes = None if layers.divergence is None else draw_boxes([layers])
    return {LAYERS_FIGURE: draw_layers(layers, maps)} | ({BOXES_FIGURE: boxes} if boxes else {})


def _sums(found: Mapping[str, Any], layers: NetworkLayers) -> SumPanel | None:
    """Return every allocation that was measured beside its sum; None where no sum is known."""
    judged = _HELD_OUT if found["held_out"] else _CALIBRATION
    groups = [("looked at by the search", _CALIBRATION, list((found["search"] or {}).get("looked_at", [])))]
    if layers.divergence is not None:
        sums = dict(zip(layers.formats, layers.divergence.sum(axis=0).tolist(), strict=True))
        uniform = [(sums[name], value) for name, value in found["uniform_measured"].items() if name in sums]
        groups.append(("one format everywhere", judged, uniform))
    for each in found["measured"]:
        if each["label"] not in ("allocation", "refined") or each["predicted"] is None:
            continue
        groups.append((each["label"], judged, [(each["predicted"], each["divergence"]["estimate"])]))
        if each["on_calibration"] is not None:
            groups.append((each["label"], _CALIBRATION, [(each["predicted"], each["on_calibration"])]))
    made = [
        SumGroup(f"{label}, {data}", *np.array(points, dtype=np.float64).T)
        for label, data, points in groups
        if points
    ]
    return SumPanel(found["model"], tuple(made), (additive_range(layers.kinds),)) if made else None


def _sum_rows(panel: SumPanel | None) -> list[tuple[str, float, float, str]]:
    """Return what, predicted, measured, and the ratio in words of each allocation, smallest sum first."""
    return [
        (group.label, predicted, measured, figure(measured / predicted) if predicted > 0 else MISSING)
        for group in (panel.groups if panel else ())
        for predicted, measured in sorted(zip(group.predicted.tolist(), group.measured.tolist(), strict=True))
    ]


def _interval(found: Mapping[str, float] | None, digits: str) -> str:
    if found is None:
        return MISSING
    # What broken outputs measure has many digits, none of which says anything.
    digits = ".3g" if found["high"] >= _HUGE else digits
    values = [f"{found[name]:{digits}}".replace("-", "−") for name in ("estimate", "low", "high")]
    return f"{values[0]} ({values[1]} to {values[2]})"


def _provenance(profile: ModelProfile) -> list[tuple[str, str]]:
    """Return how a profile was measured: name and value, hashes shortened, nothing of this machine."""
    known = profile.provenance
    rows = [(name, str(known[name])) for name in ("task", "samples", "framework", "seed") if name in known]
    if isinstance(versions := known.get("versions"), Mapping):
        rows.append(("versions", ", ".join(f"{name} {version}" for name, version in versions.items())))
    for name, words in (("weights_sha256", "weights, SHA-256"), ("data_sha256", "data, SHA-256")):
        if name in known:
            rows.append((words, str(known[name])[:16] + "…"))
    if isinstance(notes := known.get("notes"), Mapping):
        rows += [(name.replace("_", " "), str(note)) for name, note in notes.items()]
    if isinstance(spent := known.get("evaluations"), Mapping):
        rows.append(("cost", ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in spent.items())))
    return rows
