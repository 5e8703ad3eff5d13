"""Experts of a mixture that are stacked in one parameter, whichever way round, and however they are run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from evolve.networks import TorchNetwork, find_ties, profile_network
from evolve.networks.applying import make_allocation, save_quantized, uniform
from evolve.profile_files import parse_profile, profile_to_json
from evolve.quantizers import find_quantizer

E, IN, OUT = 3, 8, 12


def one_by_one(x, weight, chosen, transposed):
    parts = []
    for expert in range(E):
        matrix = weight[expert].T if transposed else weight[expert]
        parts.append(nn.functional.linear(x, matrix) * (chosen == expert)[..., None])
    return sum(parts)


def all_at_once(x, weight, chosen, transposed):
    made = torch.einsum("nti,eio->neto" if transposed else "nti,eoi->neto", x, weight)
    picked = nn.functional.one_hot(chosen, E).movedim(-1, 1)[..., None]
    return (made * picked).sum(1)


def for_each_token(x, weight, chosen, transposed):
    flat, matrices = x.reshape(-1, IN, 1), weight[chosen.reshape(-1)]
    if transposed:
        made = torch.bmm(flat.transpose(1, 2), matrices).squeeze(1)
    else:
        made = torch.bmm(matrices, flat).squeeze(-1)
    return made.view(*x.shape[:2], OUT)


def grouped(x, weight, chosen, transposed):
    tokens = x.reshape(-1, IN)
    order = chosen.reshape(-1).argsort(stable=True)
    ends = torch.bincount(chosen.reshape(-1), minlength=E).cumsum(0).to(torch.int32)
    factors = weight if transposed else weight.transpose(1, 2)
    made = torch._grouped_mm(tokens[order], factors, offs=ends)
    return torch.empty(len(tokens), OUT).index_copy(0, order, made).view(*x.shape[:2], OUT)


RUNS = (one_by_one, all_at_once, for_each_token, grouped)


class Mixture(nn.Module):
    """Tokens go to the expert that their number says."""

    def __init__(self, run, transposed, name="up_proj"):
        super().__init__()
        self.embedding = nn.Embedding(20, IN)
        shape = (E, IN, OUT) if transposed else (E, OUT, IN)
        # Experts of different sizes, so that one scale for several would show.
        sizes = torch.tensor([0.2, 1, 4]).reshape(E, 1, 1)
        self.register_parameter(name, nn.Parameter(torch.randn(shape) * sizes))
        self.up_proj_bias = nn.Parameter(torch.zeros(E, OUT))
        self.head = nn.Linear(OUT, 20)
        self.run, self.transposed, self.stack = run, transposed, name

    def forward(self, ids):
        x, chosen = self.embedding(ids), ids % E
        x = self.run(x, getattr(self, self.stack), chosen, self.transposed)
        return self.head(torch.relu(x) + self.up_proj_bias[chosen])


def mixture(run=one_by_one, transposed=False, name="up_proj"):
    torch.manual_seed(0)
    ids = torch.randint(0, 20, (12, 10))
    return Mixture(run, transposed, name), [ids]


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("name", ["up_proj", "expert_weights"])
def test_each_expert_has_scales_of_its_own(run, transposed, name):
    model, batches = mixture(run, transposed, name)
    network = TorchNetwork(model, batches)
    layer = next(each for each in network.layers if each.name == name)
    assert (layer.shape, layer.channel_axis, layer.num_experts) == ((E * OUT, IN), 1 + transposed, E)
    assert not network.left_out
    stack = getattr(model, name).detach()
    matrices = [(each.T if transposed else each).numpy() for each in stack]
    int3 = find_quantizer("INT3")
    together = int3.dequantized(network.weights(name))
    np.testing.assert_array_equal(together, np.concatenate([int3.dequantized(each) for each in matrices]))
    # Back in the model each matrix is where it was.
    assert torch.equal(network.value_of(name, network.weights(name)), stack)
    with network.replaced({name: together}) as changed:
        for at, each in enumerate(getattr(changed, name).detach()):
            mine = (each.T if transposed else each).numpy()
            np.testing.assert_array_equal(mine, int3.dequantized(matrices[at]))


def test_however_they_run_the_profile_is_the_same(tmp_path):
    tables = []
    for run in RUNS:
        for transposed in (False, True):
            model, batches = mixture(run, transposed)
            if transposed:
                plain, _ = mixture(run)
                model.up_proj.data = plain.up_proj.detach().transpose(1, 2).contiguous()
            network = TorchNetwork(model, batches)
            assert network.program(0) is not None
            profile = profile_network(network, ["INT2", "INT4", "FP16"], hessian_probes=1)
            assert profile.num_experts == (1, E, 1)
            assert parse_profile(profile_to_json(profile)) == profile
            assert parse_profile(profile_to_json(profile)).num_experts == (1, E, 1)
            tables.append((profile.sensitivity, profile.measurements["fisher"], profile.layer_bits))
    for each in tables[1:]:
        for mine, first in zip(each, tables[0], strict=True):
            np.testing.assert_allclose(mine, first, rtol=1e-3, atol=1e-9)


def test_applied_and_read_again(tmp_path):
    model, batches = mixture(grouped, transposed=True)
    network = TorchNetwork(model, batches)
    before = model.up_proj.detach().clone()
    formats = uniform(network, "INT4")
    save_quantized(network, formats, tmp_path / "small.pt")
    assert torch.equal(model.up_proj, before)
    stored = torch.load(tmp_path / "small.pt")["up_proj"]
    wanted = [find_quantizer("INT4").dequantized(each.T.numpy()).T for each in before]
    np.testing.assert_array_equal(stored.numpy(), np.stack(wanted))
    allocation = make_allocation(network, formats, "by hand")
    assert [each.num_experts for each in allocation.layers] == [1, E, 1]


def test_what_is_not_known_to_be_a_stack_stays_as_it_is():
    class Other(nn.Module):
        """Sums over experts, adds a table of three axes, and has a stack of one."""

        def __init__(self):
            super().__init__()
            self.embedding = nn.Embedding(20, IN)
            self.table = nn.Parameter(torch.randn(2, 10, IN))
            self.summed = nn.Parameter(torch.randn(E, IN, OUT))
            self.single = nn.Parameter(torch.randn(1, OUT, OUT))

        def forward(self, ids):
            x = self.embedding(ids) + self.table[0]
            return torch.einsum("nti,eio->nto", x, self.summed) @ self.single[0]

    network = TorchNetwork(Other(), [torch.randint(0, 20, (12, 10))])
    assert [layer.name for layer in network.layers] == ["embedding"]
    assert set(network.left_out) == {"table", "summed", "single"}


@pytest.mark.parametrize(
    ("kind", "path", "axis"),
    [("Qwen3Moe", "mlp", 1), ("GptOss", "mlp", 2), ("Llama4", "feed_forward", 2)],
)
def test_models_of_transformers(kind, path, axis):
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 32, "intermediate_size": 48, "moe_intermediate_size": 24, "head_dim": 16}
    sizes |= {"vocab_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    sizes |= {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "pad_token_id": 0}
    config = getattr(transformers, f"{kind}{'Text' * (kind == 'Llama4')}Config")(**sizes)
    torch.manual_seed(0)
    ids = torch.randint(1, 64, (2, 12))
    network = TorchNetwork(
        getattr(transformers, f"{kind}ForCausalLM")(config), [{"input_ids": ids, "labels": ids}]
    )
    stacks = {each.name: each for each in network.layers if each.num_experts > 1}
    assert list(stacks) == [f"model.layers.0.{path}.experts.{each}_proj" for each in ("gate_up", "down")]
    assert {(each.num_experts, each.channel_axis) for each in stacks.values()} == {(4, axis)}
    inner = 24 if kind == "Qwen3Moe" else 48
    assert [each.shape for each in stacks.values()] == [(4 * 2 * inner, 32), (4 * 32, inner)]
    assert not network.left_out
    assert any("q_proj" in name for group in find_ties(network) for name in group)
