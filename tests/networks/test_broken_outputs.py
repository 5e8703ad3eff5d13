"""Outputs that a format makes infinite or no numbers count as the worst there is."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from evolve.allocations import save_allocation
from evolve.networks import Reference, TorchNetwork, profile_network
from evolve.networks.applying import make_allocation, uniform
from evolve.networks.checking import check_allocations
from evolve.networks.handing_out import judge
from evolve.networks.joint_measuring import JointMeasurer
from evolve.networks.joint_search import refine
from evolve.networks.measurement_cache import MeasurementCache
from evolve.networks.metrics import WORST
from evolve.networks.network import Targets
from evolve.networks.sources import Networks
from evolve.profile_files import load_profile, save_profile

FORMATS = ("INT4", "INT8", "FP16")
MOST = -np.log(np.finfo(float).eps / 2)  # of a profile's losses


class Shares(nn.Module):
    """Divides by a sum that is 0 for every third sample once its small weights are rounded to 0."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Linear(20, 8, bias=False), nn.Linear(8, 16)
        self.first.weight.data *= 5e-3
        self.first.weight.data[:, :3] *= 0.05

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.clone()
        x[::3, 3:] = 0
        made = self.first(x) ** 2
        return self.head(made / made.sum(1, keepdim=True)) * 10


@cache
def networks() -> Networks:
    torch.manual_seed(0)
    model, images = Shares().eval(), torch.randn(2, 96, 20)
    with torch.no_grad():
        calibration, held_out = ([(each, model(each).argmax(1))] for each in images)
    network = TorchNetwork(model, calibration)
    return Networks(network, network.on(held_out))


@cache
def profile():
    return profile_network(networks().calibration, FORMATS, hessian_probes=0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("task", ["classification", "language", "embedding", "regression"])
def test_a_broken_row_is_the_worst_in_every_task(task, labelled, bad):
    outputs = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    # 0 is what the highest of numbers that are none would be.
    labels = outputs.copy() if task == "regression" else np.zeros(6, np.int64)
    reference = Reference(task, [outputs], [Targets(labels if labelled else None)])
    changed = outputs.copy()
    changed[2, 1] = bad
    one = reference.compare([changed])
    assert (one.broken, reference.unchanged.broken) == (1, 0)
    assert one.divergence == pytest.approx(WORST / 6)
    known = labelled and task != "embedding"
    assert (one.loss is not None) == known
    assert one.loss is None or one.loss == pytest.approx(WORST / 6)
    assert one.perplexity is None or np.isfinite(one.perplexity)
    everything = reference.compare([np.full_like(outputs, bad)])
    assert (everything.broken, everything.divergence) == (6, WORST)
    if known and task != "regression":
        assert everything.accuracy == 0
        assert one.accuracy <= 5 / 6


def test_rows_that_do_not_count_or_have_no_label_are_still_left_out():
    outputs = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32)
    labels = np.array([0, -100, 1, -100])
    counted = np.array([True, True, True, False])
    reference = Reference("classification", [outputs], [Targets(labels, counted)])
    changed = outputs.copy()
    changed[3] = np.nan
    found = reference.compare([changed])
    assert (found.broken, found.divergence) == (0, 0)
    changed[1] = np.nan
    found = reference.compare([changed])
    assert found.broken == 1
    assert found.divergence == pytest.approx(WORST / 3)
    assert found.loss == reference.unchanged.loss


def test_finite_outputs_count_no_more_than_broken_ones():
    outputs = np.array([[0.0], [1.0]], np.float32)
    reference = Reference("regression", [outputs], [Targets()])
    found = reference.compare([outputs + np.float32(1e30)])
    assert (found.divergence, found.broken) == (WORST, 0)


def test_a_profile_says_the_worst_and_why(tmp_path):
    made = profile()
    assert made.layer_names == ("first", "head")
    assert made.loss[0, 0] == pytest.approx(MOST)
    assert (np.delete(made.loss.ravel(), 0) < 0.01).all()
    assert made.provenance["notes"]["broken"].startswith(
        "outputs are infinite or no numbers with first in INT4:"
    )
    save_profile(made, tmp_path / "profile.json")
    assert load_profile(tmp_path / "profile.json").content_hash == made.content_hash


def test_a_resumed_profile_knows_it_too(tmp_path):
    path = tmp_path / "journal"

    def stop(done: int, total: int, layer: str) -> None:
        if layer == "head":
            raise KeyboardInterrupt

    options = {"hessian_probes": 0, "journal": path}
    with pytest.raises(KeyboardInterrupt):
        profile_network(networks().calibration, FORMATS, **options, progress=stop)
    lines = path.read_text().splitlines()
    assert '"broken": 32' in lines[2]
    # As older versions wrote it, who left broken rows out.
    old = {key: value for key, value in json.loads(lines[2]).items() if key != "broken"} | {"divergence": 0.0}
    for each in (lines, [*lines[:2], json.dumps(old), *lines[3:]]):
        path.write_text("\n".join(each) + "\n")
        again = profile_network(networks().calibration, FORMATS, **options, resume=True)
        assert again.content_hash == profile().content_hash
        assert again.provenance == profile().provenance


def test_what_breaks_outputs_is_not_handed_out_where_a_uniform_format_does_not(tmp_path):
    network = networks().held_out
    given = make_allocation(network, {"first": "INT4", "head": "FP16"}, "a mistake")
    verdict = judge(networks(), given, profile())
    assert verdict.is_uniform
    assert (verdict.handed_out.label, verdict.handed_out.broken) == ("INT8 everywhere", 0)
    assert "allocation: 32 of 96 outputs are infinite or no numbers" in "\n".join(verdict.notes)
    json.dumps(verdict.to_json(), allow_nan=False)
    save_allocation(verdict.allocation, tmp_path / "allocation.json")
    wide = {"first": "INT4", "head": "INT8"}
    check = check_allocations(
        JointMeasurer(network), {"whole": uniform(network, "INT8"), "broken": wide}, FORMATS
    )
    assert check.handed_out.label == "whole"
    assert [each.broken for each in check.allocations] == [0, 32]
    assert check.allocations[1].divergence.estimate > MOST
    assert check.allocations[1].accuracy.estimate < 0.7
    # Where nothing uniform is small enough, what is whole still comes first.
    alone = check_allocations(JointMeasurer(network), {"whole": uniform(network, "INT8"), "broken": wide}, [])
    assert (alone.uniform, alone.handed_out.label) == (None, "whole")


def test_where_every_format_breaks_outputs_the_verdict_says_so():
    network = networks().held_out
    narrow = profile_network(networks().calibration, ("INT4", "INT5"), hessian_probes=0)
    verdict = judge(networks(), make_allocation(network, uniform(network, "INT4"), ""), narrow)
    assert verdict.broken
    assert verdict.to_json()["handed_out_broken"]
    assert "no uniform format of its size is better: allocate more bits" in verdict.notes[-1]
    whole = judge(networks(), make_allocation(network, uniform(network, "INT8"), ""), profile())
    assert not whole.broken
    assert not any("more bits" in each for each in whole.notes)


@pytest.mark.parametrize("task", ["classification", "language", "embedding", "regression"])
def test_no_answer_that_is_the_same_for_every_input_is_nearer(task):
    rng = np.random.default_rng(0)
    outputs = [rng.standard_normal((rows, 5)).astype(np.float32) + 1 for rows in (30, 7)]
    counted = np.arange(30) % 3 > 0 if task != "regression" else None
    reference = Reference(task, outputs, [Targets(None, counted), Targets()])
    least = reference.divergence_of_one_answer()
    assert least > 0.1
    for _ in range(50):
        same = rng.standard_normal(5).astype(np.float32) + 1
        found = reference.compare([np.broadcast_to(same, each.shape) for each in outputs]).divergence
        assert found > least
    assert task != "regression" or least == pytest.approx(5 / 2)


def test_a_search_leaves_what_is_broken():
    network, made = networks().calibration, profile()
    start = np.array([0, 2], np.uint8)  # INT4, FP16
    found = refine(made, start, JointMeasurer(network), 20)
    assert found.start == pytest.approx(WORST / 3)
    assert found.divergence < 0.01


def test_the_cache_keeps_it_and_measures_older_records_again(tmp_path):
    path, formats = tmp_path / "cache.jsonl", {"first": "INT4", "head": "INT8"}
    first = JointMeasurer(networks().held_out, MeasurementCache(path)).measure(formats)
    assert first.broken == 32
    again = JointMeasurer(networks().held_out, MeasurementCache(path))
    assert again.measure(formats) == first
    assert (again.measured, again.found) == (0, 1)
    record = json.loads(path.read_text())
    del record["broken"]
    path.write_text(json.dumps(record | {"divergence": 0.0005}) + "\n")
    later = JointMeasurer(networks().held_out, MeasurementCache(path))
    assert later.measure(formats) == first
    assert (later.measured, later.found) == (1, 0)
