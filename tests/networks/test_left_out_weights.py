"""Weights that are in no layer: found, and told by every verb that does not count them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper, save
from test_network_verbs import Shell
from torch import nn

from evolve.networks import OnnxNetwork, TorchNetwork
from evolve.networks.network import left_out_words
from evolve.profile_files import load_profile


class Experts(nn.Module):
    """Has stacked experts, a bare matrix, a parametrized weight, and what is a layer or no matrix."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(20, 8)
        self.positions = nn.Parameter(torch.randn(1, 10, 8))
        self.up_proj = nn.Parameter(torch.randn(4, 8, 16))
        self.normed = nn.utils.parametrizations.weight_norm(nn.Linear(16, 8))
        self.stacked_weight = nn.Parameter(torch.randn(2, 8, 8))
        self.scale = nn.Parameter(torch.ones(8))
        self.head = nn.Linear(8, 20)
        self.tied = self.head.weight  # a layer by another name

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embedding(ids) + self.positions
        x = self.normed(torch.einsum("nti,eio->nto", x, self.up_proj))
        return self.head(torch.einsum("nti,eio->nto", x, self.stacked_weight) * self.scale)


def experts():
    torch.manual_seed(0)
    return Experts(), [torch.randint(0, 20, (12, 10))], [torch.randint(0, 20, (12, 10))]


LEFT_OUT = {
    "positions": 80,
    "up_proj": 512,
    "normed.parametrizations.weight.original0": 8,
    "normed.parametrizations.weight.original1": 128,
}
#: The layers have 160 + 160 + 128 weights.
WORDS = (
    "728 weights in up_proj, normed.parametrizations.weight.original1, positions, … "
    "(4 parameters, 62 % of the network)"
)


def test_a_module_says_what_is_in_no_layer():
    network = TorchNetwork(*experts()[:2])
    assert {layer.name for layer in network.layers} == {"embedding", "head", "stacked_weight"}
    assert network.left_out == LEFT_OUT
    assert left_out_words(network) == WORDS
    plain = TorchNetwork(nn.Sequential(nn.Linear(4, 3), nn.LayerNorm(3)), [torch.randn(5, 4)])
    assert (plain.left_out, left_out_words(plain)) == ({}, None)


def test_a_small_share_is_said_so():
    class Shifted(nn.Linear):
        def __init__(self) -> None:
            super().__init__(40, 40)
            self.shift = nn.Parameter(torch.zeros(1, 4))

        def forward(self, x):
            return super().forward(x) + self.shift.sum()

    network = TorchNetwork(Shifted(), [torch.randn(5, 40)])
    assert left_out_words(network) == "4 weights in shift (1 parameter, less than 1 % of the network)"


def test_a_graph_says_what_is_in_no_layer(tmp_path):
    rng = np.random.default_rng(0)
    weights = {
        "first": rng.normal(size=(4, 6)),
        "position": rng.normal(size=(1, 6)),
        "expert": rng.normal(size=(6, 3)),
        "bias": rng.normal(size=(3,)),
        "two": np.full((1, 1), 2.0),
        "unused": rng.normal(size=(5, 5)),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["a"]),
        helper.make_node("Add", ["a", "position"], ["b"]),
        helper.make_node("Einsum", ["b", "expert"], ["c"], equation="ni,io->no"),
        helper.make_node("Add", ["c", "bias"], ["d"]),
        helper.make_node("Mul", ["d", "two"], ["out"]),
    ]
    made = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(each.astype("f"), name) for name, each in weights.items()],
    )
    path = tmp_path / "m.onnx"
    save(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    network = OnnxNetwork(path, {"x": rng.normal(size=(12, 4))}, threads=1)
    assert [layer.name for layer in network.layers] == ["first"]
    assert network.left_out == {"position": 6, "expert": 18}
    assert left_out_words(network) == "24 weights in expert, position (2 parameters, 50 % of the network)"


@pytest.fixture
def shell(tmp_path, monkeypatch, capsys) -> Shell:
    monkeypatch.chdir(tmp_path)
    return Shell(monkeypatch, capsys)


def test_every_verb_says_what_it_does_not_count(shell, tmp_path):
    model = f"{__file__}:experts"
    quick = ("--formats", "INT4,INT8,FP16", "--hessian-probes", 0, "--output", "profile.json")
    status, out, err = shell("profile", model, *quick, "--json", "--report", "page")
    assert status == 0, err
    assert f"note: not measured: {WORDS}\n" in err
    assert json.loads(out)["not_measured"] == LEFT_OUT
    provenance = load_profile("profile.json").provenance
    assert provenance["not_measured"] == LEFT_OUT
    assert f"| not measured | {WORDS}" in (tmp_path / "page" / "report.md").read_text()
    assert shell("allocate", "profile.json", "--budget", "avg_bits=9", "--output", "allocation.json")[0] == 0
    for words in (("check-network",), ("apply", "--output", "net.pt")):
        _, _, err = shell(*words, "allocation.json", "--model", model)
        assert f"note: not counted, and kept as they are: {WORDS}\n" in err
