"""Networks of an encoder and a decoder: their outputs are the decoder's rows, whatever the encoder reads."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from evolve.networks import TorchNetwork, profile_network, reference_of

CLASSES = 20


class Translator(nn.Module):
    """Adds the mean of what the encoder reads to each token of the decoder, as keyword arguments only."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.source, self.target = nn.Embedding(CLASSES, 8), nn.Embedding(CLASSES, 8)
        self.head = nn.Linear(8, CLASSES)

    def forward(
        self,
        *,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        decoder_input_ids: torch.Tensor | None = None,
        decoder_inputs_embeds: torch.Tensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        del decoder_attention_mask  # nothing here looks at other tokens of the decoder
        kept = attention_mask[..., None].float()
        read = (self.source(input_ids) * kept).sum(1, keepdim=True) / kept.sum(1, keepdim=True)
        own = self.target(decoder_input_ids) if decoder_inputs_embeds is None else decoder_inputs_embeds
        return {"logits": self.head(own + read)}


def batch(source: int, target: int = 6, labels: bool = True, mask: bool = False) -> dict[str, Any]:
    """Return three texts, of which the encoder's have 1, 2 and all tokens, the decoder's 2, 4 and all."""
    generator = torch.Generator().manual_seed(source)

    def ids(length: int, *kept: int) -> tuple[torch.Tensor, torch.Tensor]:
        found = torch.arange(length) < torch.tensor([*kept, length])[:, None]
        return torch.randint(1, CLASSES, (3, length), generator=generator) * found, found

    read, seen = ids(source, 1, 2)
    made, kept = ids(target, 2, 4)
    following = torch.randint(1, CLASSES, made.shape, generator=generator)
    given: dict[str, Any] = {"input_ids": read, "attention_mask": seen.long(), "decoder_input_ids": made}
    if labels:
        given["labels"] = torch.where(kept, following, -100)
    if mask:
        given["decoder_attention_mask"] = kept.long()
    return given


KEPT = np.arange(6) < np.array([2, 4, 6])[:, None]


@pytest.mark.parametrize("source", [6, 9])
@pytest.mark.parametrize("mask", [True, False])
def test_the_labels_of_a_decoder_are_its_rows_and_are_not_shifted(source, mask):
    given = batch(source, mask=mask)
    network = TorchNetwork(Translator(), [given])
    assert network.task == "language"
    targets = network.targets(0)
    assert (targets.counted.reshape(3, 6) == KEPT).all()
    assert (targets.labels.reshape(3, 6) == given["labels"].numpy()).all()
    expected = nn.functional.cross_entropy(
        torch.tensor(network.outputs(0)).flatten(0, 1), given["labels"].flatten()
    )
    assert reference_of(network).unchanged.loss == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("source", [6, 9])
@pytest.mark.parametrize("mask", [True, False])
def test_without_labels_they_are_the_next_tokens_of_the_decoder(source, mask):
    given = batch(source, labels=False, mask=mask)
    network = TorchNetwork(Translator(), [given])
    assert network.task == "language"
    targets, kept = network.targets(0), KEPT if mask else np.ones_like(KEPT)
    assert (targets.counted is None) is not mask
    assert reference_of(network).num_rows == kept.sum()
    following = kept[:, :-1] & kept[:, 1:]
    labels = targets.labels.reshape(3, 6)
    assert (labels[:, :-1][following] == given["decoder_input_ids"].numpy()[:, 1:][following]).all()
    assert (labels >= 0).sum() == following.sum()


def test_labels_that_repeat_what_the_decoder_reads_stay_where_they_are():
    given = batch(6)
    given["labels"] = torch.where(torch.tensor(KEPT), given["decoder_input_ids"], -100)
    labels = TorchNetwork(Translator(), [given]).targets(0).labels
    assert (labels.reshape(3, 6) == given["labels"].numpy()).all()


def test_a_decoder_may_read_embeddings():
    given = batch(6)
    given["decoder_inputs_embeds"] = torch.randn(*given.pop("decoder_input_ids").shape, 8)
    network = TorchNetwork(Translator(), [given])
    assert network.task == "language"
    assert (network.targets(0).counted.reshape(3, 6) == KEPT).all()


class Shifting(Translator):
    """Makes what its decoder reads of the labels, if they are all that is given."""

    config = SimpleNamespace(is_encoder_decoder=True)

    def forward(
        self, *, labels: torch.Tensor | None = None, **keywords: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        if labels is not None:
            before = nn.functional.pad(labels[:, :-1].clamp(min=0), (1, 0))
            keywords.setdefault("decoder_input_ids", before)
        return super().forward(**keywords)


@pytest.mark.parametrize("source", [6, 9])
def test_a_model_may_make_what_its_decoder_reads_of_the_labels(source):
    given = batch(source)
    ids = nn.functional.pad(given["labels"][:, :-1].clamp(min=0), (1, 0))
    whole = TorchNetwork(Translator(), [{**given, "decoder_input_ids": ids}])
    del given["decoder_input_ids"]
    network = TorchNetwork(Shifting(), [given])
    assert network.task == "language"
    np.testing.assert_array_equal(network.targets(0).labels, whole.targets(0).labels)
    np.testing.assert_array_equal(network.targets(0).counted, whole.targets(0).counted)
    np.testing.assert_array_equal(network.outputs(0), whole.outputs(0))
    found, expected = (profile_network(each, ["INT4"], hessian_probes=2) for each in (network, whole))
    np.testing.assert_array_equal(found.sensitivity, expected.sensitivity)
    np.testing.assert_array_equal(found.gradient_sensitivity, expected.gradient_sensitivity)


def test_labels_are_not_handed_on_where_the_decoder_reads_something_else():
    given = batch(6)
    network = TorchNetwork(Shifting(), [given])
    assert "labels" not in network.batches[0].keywords


def test_labels_that_are_all_unknown_leave_every_row_to_compare():
    given = batch(6)
    given["labels"] = torch.full_like(given["labels"], -100)
    assert reference_of(TorchNetwork(Translator(), [given])).num_rows == 18


@pytest.mark.parametrize("source", [6, 9])
@pytest.mark.parametrize("mask", [True, False])
@pytest.mark.parametrize("labels", [True, False])
def test_the_rows_of_an_onnx_network_are_the_same(source, mask, labels):
    pytest.importorskip("onnx")
    from evolve.networks.onnx_data import choose_task, make_targets

    network = TorchNetwork(Translator(), [batch(source, labels=labels, mask=mask)])
    arrays = {name: each.numpy() for name, each in batch(source, labels=labels, mask=mask).items()}
    own = arrays.pop("labels", None)
    assert choose_task(arrays, network.outputs(0), own, None, "model.onnx") == "language"
    (found,), expected = make_targets([arrays], 3, own, "language"), network.targets(0)
    np.testing.assert_array_equal(found.labels, expected.labels)
    np.testing.assert_array_equal(found.counted, expected.counted)
