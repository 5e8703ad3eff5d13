"""PyTorch networks: their layers, tasks, outputs and ties."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from small_networks import Block, LanguageModel, build, pairs, tokens, trained_mlp
from torch import nn

from evolve.errors import NetworkError
from evolve.networks import TorchNetwork, find_ties, reference_of
from evolve.networks.ties import check_ties


def test_layers_are_in_the_order_they_run_in():
    network = TorchNetwork(*build("language model"))
    found = [(layer.name, layer.kind, layer.shape) for layer in network.layers]
    assert found[0] == ("embedding", "Embedding", (20, 16))
    assert found[2:7] == [
        ("blocks.0.norm1", "LayerNorm", (16,)),
        ("blocks.0.attn.q_proj", "Attention", (16, 16)),
        ("blocks.0.attn.k_proj", "Attention", (16, 16)),
        ("blocks.0.attn.v_proj", "Attention", (16, 16)),
        ("blocks.0.attn.out_proj", "Attention", (16, 16)),
    ]
    assert found[-1] == ("head", "Classifier", (20, 16))


def test_shared_weights_are_one_layer():
    network = TorchNetwork(*build("shared weights"))
    assert [layer.name for layer in network.layers].count("embedding") == 1
    assert "head" not in [layer.name for layer in network.layers]
    assert "Classifier" not in [layer.kind for layer in network.layers]
    aliases = {layer.name: layer.aliases for layer in network.layers if layer.aliases}
    assert aliases == {"embedding": ("head",)}


def test_weights_have_output_channels_first():
    model = nn.Sequential(nn.ConvTranspose2d(3, 5, 2), nn.Flatten(), nn.Linear(5 * 9 * 9, 4))
    network = TorchNetwork(model, pairs(2, 3, 8, 8, classes=4))
    assert network.layers[0].shape == (5, 3, 2, 2)
    assert [layer.channel_axis for layer in network.layers] == [1, 0]
    weights = network.weights("0")
    assert weights.shape == (5, 3, 2, 2)
    np.testing.assert_array_equal(network.value_of("0", weights).numpy(), model[0].weight.detach().numpy())


def test_modules_with_several_weights_name_each():
    names = [layer.name for layer in TorchNetwork(*build("lstm")).layers]
    assert names == ["rnn.weight_ih_l0", "rnn.weight_hh_l0", "head"]
    names = [layer.name for layer in TorchNetwork(*build("encoder")).layers]
    assert "0.layers.1.self_attn.in_proj_weight" in names
    assert "0.layers.1.self_attn.out_proj" in names


@pytest.mark.parametrize(
    ("kind", "task"),
    [("language model", "language"), ("residual", "classification"), ("lstm", "classification")],
)
def test_the_task_is_found(kind, task):
    assert TorchNetwork(*build(kind)).task == task


def test_the_task_of_other_targets_is_found_or_declared():
    model, inputs = nn.Linear(8, 4), torch.randn(6, 8)
    assert TorchNetwork(model, [inputs]).task == "embedding"
    assert TorchNetwork(model, [(inputs, torch.randn(6, 4))]).task == "regression"
    assert TorchNetwork(model, [inputs], task="classification").task == "classification"
    network = TorchNetwork(model, [(inputs, torch.randn(6, 4))])
    assert reference_of(network).unchanged.loss > 0


class Keywords(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.model = LanguageModel()

    def forward(self, input_ids, attention_mask):
        assert attention_mask.shape == input_ids.shape
        return {"logits": self.model(input_ids)}


@pytest.mark.parametrize("padded", ["right", "left"])
@pytest.mark.parametrize("given", ["none", "the inputs", "the inputs but padding"])
def test_batches_may_be_keyword_arguments_and_padded(padded, given):
    ids = tokens(3)[0]
    mask = torch.ones_like(ids)
    mask[0, slice(5, None) if padded == "right" else slice(0, 5)] = 0
    batch = {"input_ids": ids, "attention_mask": mask}
    if given != "none":
        batch["labels"] = ids if given == "the inputs" else torch.where(mask.bool(), ids, -100)
    network = TorchNetwork(Keywords(), [batch])
    assert network.task == "language"
    assert network.targets(0).counted.sum() == 25
    assert reference_of(network).num_rows == 25
    # Every real token but the last of each text has a real one after it.
    real = mask[:, 1:].bool() & mask[:, :-1].bool()
    labels = network.targets(0).labels.reshape(ids.shape)
    assert (labels >= 0).sum() == 4 + 9 + 9
    assert (labels[:, :-1][real.numpy()] == ids[:, 1:][real].numpy()).all()
    logits = torch.tensor(network.outputs(0))[:, :-1][real]
    expected = nn.functional.cross_entropy(logits, ids[:, 1:][real]).item()
    assert reference_of(network).unchanged.loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("padded", [slice(3, None), slice(0, 2)])
@pytest.mark.parametrize("given", [None, -1, 0])
def test_padding_is_no_label_of_an_onnx_network_either(padded, given):
    pytest.importorskip("onnx")
    from evolve.networks.onnx_data import make_targets

    ids = np.arange(1, 11, dtype=np.int64).reshape(2, 5)
    mask = np.ones_like(ids)
    mask[0, padded] = 0
    labels = None if given is None else np.where(mask == 0, given or ids, ids)
    # The mask may be the first input of the graph.
    (targets,) = make_targets([{"attention_mask": mask, "input_ids": ids}], 3, labels, "language")
    real = np.zeros_like(ids, dtype=bool)
    real[:, :-1] = (mask[:, 1:] & mask[:, :-1]) != 0
    found = targets.labels.reshape(ids.shape)
    assert (found[real] == ids[:, 1:][real[:, :-1]]).all()
    assert (found[~real] == -100).all()


def test_ties_are_found():
    assert find_ties(TorchNetwork(*build("language model")))[:2] == (
        ("blocks.0.attn.q_proj", "blocks.0.attn.k_proj", "blocks.0.attn.v_proj"),
        ("blocks.0.mlp.gate_proj", "blocks.0.mlp.up_proj"),
    )
    assert find_ties(TorchNetwork(*build("residual"))) == (("3.conv2", "3.shortcut.0"),)
    assert find_ties(TorchNetwork(*trained_mlp())) == ()


def test_ties_by_names_where_nothing_else_is_known():
    class Attention(nn.Module):
        """Does what its weights say, so that no part of it can be run again by itself."""

        def __init__(self):
            super().__init__()
            self.q_proj, self.k_proj, self.v_proj = (nn.Linear(8, 8) for _ in range(3))
            self.o_proj = nn.Linear(8, 8)

        def forward(self, x):
            scores = self.q_proj(x) @ self.k_proj(x).T
            return self.o_proj(scores @ self.v_proj(x) if scores.sum() > 0 else self.v_proj(x))

    torch.manual_seed(0)
    network = TorchNetwork(nn.Sequential(Attention(), Attention()), [torch.randn(5, 8)])
    assert network.program(0) is None
    assert find_ties(network) == tuple(tuple(f"{at}.{part}_proj" for part in "qkv") for at in (0, 1))


def test_names_alone_tie_nothing():
    class TwoInputs(nn.Module):
        def __init__(self):
            super().__init__()
            self.query, self.key, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)

        def forward(self, x):
            return self.head(self.query(x) * self.key(x.relu()))

    assert find_ties(TorchNetwork(TwoInputs(), pairs(3, 8, classes=4))) == ()


def test_declared_ties_are_joined_and_checked():
    network = TorchNetwork(*trained_mlp())
    assert check_ties(network, [["4", "0"], ["2", "0"]]) == (("0", "2", "4"),)
    with pytest.raises(NetworkError, match=r"no such layer, found '5'\. Known: 0, 2, 4"):
        check_ties(network, [["0", "5"]])


def test_one_sample_may_lack_an_axis_of_samples():
    network = TorchNetwork(nn.Linear(8, 4), [(torch.ones(8), torch.tensor(3))])
    assert network.task == "classification"
    assert reference_of(network).num_rows == 1


@dataclass
class Answer:
    scores: torch.Tensor
    hidden: torch.Tensor


class Returning(nn.Module):
    """Returns what a function makes of its outputs and the layer before them."""

    def __init__(self, pack) -> None:
        super().__init__()
        self.body, self.head, self.pack = nn.Linear(8, 6), nn.Linear(6, 4), pack

    def forward(self, x: torch.Tensor):
        hidden = self.body(x)
        return self.pack(self.head(hidden), hidden)


@pytest.mark.parametrize(
    ("pack", "width"),
    [
        (lambda scores, hidden: (scores, hidden), 4),
        (lambda scores, hidden: (hidden, scores), 6),
        (lambda scores, hidden: (scores.argmax(-1), hidden.mean(), scores), 4),
        (lambda scores, hidden: {"hidden": hidden, "logits": scores}, 4),
        (lambda scores, hidden: SimpleNamespace(scores=scores, last_hidden_state=hidden), 6),
        (lambda scores, hidden: {"embeddings": scores, "hidden": hidden}, 4),
    ],
)
def test_one_tensor_of_what_a_model_returns_is_compared(pack, width):
    network = TorchNetwork(Returning(pack), [torch.randn(3, 8)])
    assert network.outputs(0).shape == (3, width)


def test_an_output_that_holds_no_tensor_is_refused_with_the_cure():
    with pytest.raises(NetworkError, match=r"no output.*found Answer\. Wrap the model in one whose forward"):
        TorchNetwork(Returning(Answer), [torch.randn(3, 8)])


def test_a_model_in_training_is_put_in_evaluation_mode():
    model = nn.Sequential(Block(16, in_place=False), nn.Dropout(0.5), nn.Linear(16, 4))
    network = TorchNetwork(model.train(), [torch.randn(2, 5, 16)])
    assert not model.training
    np.testing.assert_array_equal(network.outputs(0), network.outputs(0))
