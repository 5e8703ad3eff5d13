"""Networks of which parts may not run by themselves, or not for all data: numbers are as in full passes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from evolve.networks import TorchNetwork, profile_network, reference_of
from evolve.quantizers import find_quantizer

FORMATS = ("INT2", "INT4", "FP16")


class Routed(nn.Module):
    """Each sample goes to the expert whose score is the highest, by a number that Python reads."""

    def __init__(self, read):
        super().__init__()
        self.inner, self.gate = nn.Linear(16, 16), nn.Linear(16, 4)
        self.experts = nn.ModuleList(nn.Linear(16, 16) for _ in range(4))
        self.outer, self.read = nn.Linear(16, 5), read

    def forward(self, x):
        h = self.inner(x)
        chosen = self.read(self.gate(h).argmax(-1))
        return self.outer(torch.stack([self.experts[at](row) for at, row in zip(chosen, h, strict=True)]))


class Late(nn.Module):
    """Only batches that are not of eight samples go through numpy."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(16, 8), nn.Linear(8, 5)

    def forward(self, x):
        h = torch.sign(self.inner(x))
        if len(x) != 8:
            h = torch.from_numpy(np.tanh(self.inner(x).detach().numpy()))
        return self.outer(h)


class Images(nn.Module):
    """Some batches have a picture."""

    def __init__(self):
        super().__init__()
        self.vision, self.words, self.outer = nn.Linear(12, 16), nn.Linear(16, 16), nn.Linear(16, 5)
        self.never = nn.Linear(30, 30)

    def forward(self, x, pixels=None):
        h = self.words(x)
        return self.outer(h if pixels is None else h + self.vision(pixels))


def samples(sizes=(8, 8, 8), **more):
    generator = torch.Generator().manual_seed(1)
    return [{"x": torch.randn(size, 16, generator=generator), **more} for size in sizes]


def pictures(which):
    return [
        each | ({"pixels": torch.ones(8, 12)} if at in which else {}) for at, each in enumerate(samples())
    ]


READERS = {
    "tolist": lambda chosen: chosen.tolist(),
    "numpy": lambda chosen: chosen.cpu().numpy(),
    "asarray": lambda chosen: np.asarray(chosen),
    "item": lambda chosen: [each.item() for each in chosen],
}
CASES = {
    **{f"by {name}": lambda read=read: (Routed(read), samples()) for name, read in READERS.items()},
    "through numpy later": lambda: (Late(), samples((8, 5, 6))),
    "with pictures later": lambda: (Images(), pictures({1, 2})),
    "with pictures first": lambda: (Images(), pictures({0})),
}


def network_of(case):
    torch.manual_seed(0)
    return TorchNetwork(*CASES[case]())


@pytest.mark.parametrize("case", CASES)
def test_every_cell_is_that_of_a_full_pass(case):
    network = network_of(case)
    profile, reference = profile_network(network, FORMATS), reference_of(network)
    names = set(profile.layer_names)
    assert names == {name for name, each in network.model.named_modules() if type(each) is nn.Linear} - {
        "never"
    }
    for row, layer in enumerate(network.layers):
        for column, name in enumerate(FORMATS):
            weights = {layer.name: find_quantizer(name).dequantized(network.weights(layer.name))}
            found = reference.compare(network.outputs(at, weights) for at in range(network.num_batches))
            assert profile.sensitivity[row, column] == pytest.approx(-np.expm1(-found.divergence), abs=1e-12)
    assert (profile.sensitivity[:, 0] > 0).any()


def test_what_no_batch_needs_is_named():
    network = network_of("with pictures later")
    assert network.left_out == {"never.weight": 900}
    assert [layer.name for layer in network.layers] == ["words", "vision", "outer"]


def test_other_data_have_the_same_layers():
    network = network_of("with pictures first")
    other = network.on(pictures(()))
    assert other.layers == network.layers
    assert other.left_out == network.left_out
    changed = {"vision": np.zeros((16, 12), np.float32)}
    np.testing.assert_array_equal(other.outputs(0, changed), other.outputs(0))


def test_marks_for_a_profiler_change_nothing():
    class Marked(nn.Linear):
        def forward(self, x):
            with torch.profiler.record_function("block"):
                return super().forward(x)

    torch.manual_seed(0)
    model, data = Marked(16, 5), [each["x"] for each in samples()]
    network = TorchNetwork(model, data)
    assert network.program(0) is network.program(1) is not None
    plain = nn.Linear(16, 5)
    plain.load_state_dict(model.state_dict())
    expected = profile_network(TorchNetwork(plain, data), FORMATS)
    np.testing.assert_array_equal(profile_network(network, FORMATS).sensitivity, expected.sensitivity)


def test_a_number_may_come_before_the_samples():
    class Scaled(nn.Linear):
        def forward(self, scale, x):
            return super().forward(x) * scale

    torch.manual_seed(0)
    batches = [(torch.tensor(2.0), each["x"], torch.zeros(8, dtype=torch.long)) for each in samples()]
    profile = profile_network(TorchNetwork(Scaled(16, 5), batches), FORMATS, hessian_probes=1)
    assert profile.provenance["samples"] == 24


def test_outputs_may_have_no_axis_but_that_of_samples():
    class Squeezed(nn.Linear):
        def forward(self, x):
            return super().forward(x).squeeze()

    torch.manual_seed(0)
    batches = [(each["x"], each["x"].sum(1)) for each in samples()]
    profile = profile_network(TorchNetwork(Squeezed(16, 1), batches), FORMATS, hessian_probes=1)
    assert profile.sensitivity[0, 0] > 0
    assert np.isfinite(profile.measurements["hessian_trace"]).all()
