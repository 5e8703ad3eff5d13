"""Running only what is downstream of a layer gives the numbers of running everything."""

from __future__ import annotations

import numpy as np
import pytest
from small_networks import KINDS, build

from evolve.networks.network import Network
from evolve.networks.replay import Replay
from evolve.networks.slicing import Slices
from evolve.networks.torch_network import TorchNetwork


def changed(network: Network, layer: str, seed: int) -> np.ndarray:
    weights = network.weights(layer)
    return (weights + np.random.default_rng(seed).normal(0, 0.2, weights.shape)).astype(np.float32)


def assert_same(network: Network, replay: Replay, layers: list[str]) -> None:
    for layer in layers:
        for seed in range(2):
            weights = changed(network, layer, seed)
            plain = [network.outputs(batch, {layer: weights}) for batch in range(network.num_batches)]
            quick = list(replay.outputs(layer, weights))
            assert any((each != network.outputs(at)).any() for at, each in enumerate(plain)), layer
            for one, other in zip(plain, quick, strict=True):
                np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("kind", KINDS)
def test_downstream_only_equals_everything(kind):
    network = TorchNetwork(*build(kind))
    names = [layer.name for layer in network.layers]
    assert_same(network, Replay(network), names)


@pytest.mark.parametrize("kind", ["language model", "residual"])
def test_any_order_of_layers_and_no_room_at_all(kind):
    network = TorchNetwork(*build(kind))
    names = [layer.name for layer in network.layers]
    assert_same(network, Replay(network), names[::-1])
    assert_same(network, Replay(network, cache_bytes=0), names[::3])


def test_only_what_depends_on_the_weight_is_run():
    network = TorchNetwork(*build("language model"))
    program = network.program(0)
    slices = Slices(program)
    run = [len(slices.of(layer.name).dependent) for layer in network.layers]
    assert run[0] <= len(program.steps)
    assert run[-1] < 0.1 * len(program.steps)
    value, gate = slices.of("blocks.1.attn.v_proj"), slices.of("blocks.1.mlp.gate_proj")
    assert len(gate.dependent) < len(value.dependent) < len(program.steps) / 2


def test_where_python_looks_at_values_everything_is_run():
    assert TorchNetwork(*build("deciding")).program(0) is None
    assert TorchNetwork(*build("escaping")).program(0) is None
    assert TorchNetwork(*build("buffer")).program(0) is not None


def test_batches_that_do_the_same_share_a_tape():
    network = TorchNetwork(*build("language model"))
    assert network.program(0) is network.program(1)
    assert network.program(0) is not network.program(2)


def test_the_model_is_left_as_it_was():
    model, data = build("residual")
    network = TorchNetwork(model, data)
    before = {name: each.clone() for name, each in model.state_dict().items()}
    replay = Replay(network)
    for layer in network.layers:
        list(replay.outputs(layer.name, changed(network, layer.name, 0)))
        network.outputs(0, {layer.name: changed(network, layer.name, 0)})
    assert all((before[name] == each).all() for name, each in model.state_dict().items())
