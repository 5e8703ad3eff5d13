"""PyTorch networks that cannot be measured as they are: what is said, and the cure."""

from __future__ import annotations

import re

import pytest
import torch
from small_networks import pairs
from torch import nn

from evolve.errors import NetworkError
from evolve.networks import TorchNetwork, profile_network, reference_of


@pytest.mark.parametrize(
    ("model", "data", "said"),
    [
        (3, [], ["not a model", "torch.nn.Module", "int"]),
        (nn.ReLU(), pairs(3, 8), ["no weight layers"]),
        (nn.Linear(8, 4), 5, ["not a loader", "iterable"]),
        (nn.Linear(8, 4), [], ["no data"]),
        (nn.Linear(8, 4), ["x"], ["batch 0", "not a batch", "str"]),
        (nn.Linear(8, 4), pairs(3, 7), ["batch 0", "does not run on the data", "RuntimeError"]),
        (nn.Linear(8, 4), pairs(3, 8, classes=99), ["labels do not fit"]),
        (
            nn.Linear(8, 4),
            pairs(3, 8) + pairs(0, 8),
            ["batch 1", "a batch of nothing", "(0, 8)", "Leave it out"],
        ),
        (nn.Embedding(8, 4), [torch.zeros(3, 0, dtype=torch.long)], ["a batch of nothing", "(3, 0)"]),
        (nn.Linear(8, 4, device="meta"), pairs(3, 8), ["meta device", "model.to_empty", "load_state_dict"]),
    ],
)
def test_bad_networks_are_explained(model, data, said):
    with pytest.raises(NetworkError) as caught:
        TorchNetwork(model, data)
    assert all(words in str(caught.value) for words in said), caught.value


class OneLogit(nn.Sequential):
    """A classifier of two classes, as it is trained with binary cross entropy."""

    def __init__(self, squeezed: bool, cure: str = "x") -> None:
        super().__init__(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
        self.squeezed, self.cure = squeezed, cure

    def forward(self, x):
        x = super().forward(x)
        return eval(self.cure, {"torch": torch, "x": x[:, 0] if self.squeezed else x})


@pytest.mark.parametrize("labels", [(5,), (5, 1)])
@pytest.mark.parametrize("squeezed", [False, True])
def test_one_logit_of_two_classes_is_refused_with_a_cure_that_works(squeezed, labels):
    torch.manual_seed(0)
    inputs, right = torch.randn(5, 8), torch.tensor([0, 1, 1, 0, 1])
    model = OneLogit(squeezed)
    for declared in (None, "classification"):
        with pytest.raises(NetworkError, match=r"one output for all classes.*--task regression") as caught:
            TorchNetwork(model, [(inputs, right.reshape(labels))], task=declared)
    assert TorchNetwork(model, [(inputs, right.reshape(labels))], task="regression").task == "regression"
    two = OneLogit(squeezed, re.findall(r"torch.*?-1\)", str(caught.value))[0])
    two.load_state_dict(model.state_dict())
    measured = reference_of(TorchNetwork(two, [(inputs, right)])).unchanged
    logits = model(inputs).reshape(-1)
    assert measured.accuracy == ((logits > 0) == right).float().mean()
    loss = nn.functional.binary_cross_entropy_with_logits(logits, right.float())
    assert measured.loss == pytest.approx(loss.item(), rel=1e-5)


@pytest.mark.parametrize(("place", "said"), [("weight", "bad weights"), ("bias", "bad outputs")])
def test_numbers_that_are_none_are_refused(place, said):
    model = nn.Linear(8, 4)
    getattr(model, place).data[0] = float("nan")
    with pytest.raises(NetworkError, match=said):
        reference_of(TorchNetwork(model, pairs(3, 8, classes=4)))


class Noisy(nn.Module):
    """Adds noise of a size relative to its outputs, or to its padding alone."""

    def __init__(self, size: float, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.head, self.size = nn.Linear(8, 4).to(dtype), size

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.head(x.to(self.head.weight.dtype)).float()
        return y + self.size * y.std() * torch.randn_like(y)


class Dropping(Noisy):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(nn.functional.dropout(x, 0.1, training=True))


@pytest.mark.parametrize(
    ("model", "random"),
    [
        (Dropping(0), True),
        (Noisy(1e-3), True),
        (Noisy(1e-6), False),
        (Noisy(0.1, torch.bfloat16), True),
        (Noisy(1e-3, torch.bfloat16), False),
    ],
)
def test_a_network_that_is_random_is_refused(model, random, tmp_path):
    network = TorchNetwork(model, [torch.randn(5, 8), torch.randn(5, 8)])
    if not random:
        reference_of(network)
        return
    for measure in (profile_network, reference_of):
        with pytest.raises(NetworkError, match=r"other outputs each time it runs.*model\.eval\(\)"):
            measure(network)
    journal = tmp_path / "journal"
    with pytest.raises(NetworkError):
        profile_network(network, journal=journal)
    assert not journal.exists()


def test_padding_may_be_random():
    class Padded(Noisy):
        def forward(self, input_ids, attention_mask):
            y = self.head(input_ids)
            return torch.where(attention_mask[..., None] > 0, y, torch.randn_like(y))

    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    batch = {"input_ids": torch.randn(2, 3, 8), "attention_mask": mask}
    assert reference_of(TorchNetwork(Padded(0), [batch])).num_rows == 3
