"""The export is what torchao's own reader takes, and what it does to a real network is what we measure."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import pytest
from export_cases import FORMATS as OURS
from export_cases import document, layer, llama

pytest.importorskip("torch")
pytest.importorskip("torchao")
pytest.importorskip("sklearn")

import torch
from digits_networks import loss, mlp_allocation, our_loss, steps_apart, trained_mlp
from torch import nn

from evolve.allocations import Allocation
from evolve.exporters import TARGETS, Export, Options
from evolve.exporters.storage import PLAIN
from evolve.networks import TorchNetwork
from evolve.networks.applying import QuantizedWeights, make_allocation

TARGET = TARGETS["torchao"]


@pytest.fixture(autouse=True)
def _quiet() -> None:
    # torchao and torch warn about each other's newest parts.
    warnings.simplefilter("ignore")


def read(export: Export) -> object:
    from torchao.core.config import config_from_dict

    return config_from_dict(json.loads(document(export)))


def quantized(model: nn.Module, export: Export) -> nn.Module:
    from torchao.quantization import quantize_

    quantize_(model, read(export), filter_fn=None)
    return model


def weights(model: nn.Module, export: Export) -> dict[str, torch.Tensor]:
    found = {each.layer: model.get_submodule(each.layer).weight for each in export.layers}
    return {name: each.dequantize() if hasattr(each, "dequantize") else each for name, each in found.items()}


@pytest.mark.parametrize("name", TARGET.formats)
def test_every_format_is_read_as_it_was_written(name: str) -> None:
    from torchao.core.config import config_to_dict

    shape = (16, 64, 3, 3) if name.endswith("_PER_PLACE") else (64, 256)
    kind = "Conv" if name.endswith("_PER_PLACE") else "Linear"
    asked = layer("a", kind, shape, name.removesuffix("_PER_PLACE"))
    export = TARGET.export(Allocation("m", (asked,)), Options())
    assert export.layers[0].format == name
    written = json.loads(document(export))["_data"]["fqn_to_config"].get("a")
    back = config_to_dict(read(export))["_data"]["fqn_to_config"].get("a")
    assert (written is None) == (name in PLAIN)
    assert (written is None) == (back is None)
    if written is not None:
        assert (back["_type"], back["_version"]) == (written["_type"], written["_version"])
        assert written["_data"].items() <= back["_data"].items()


# The loss of ours and torchao's, relative to the loss of the network as it is; how many steps a weight is
# off at most. Asymmetric ranges are the same as ours but for the 16 bits of our scale; symmetric ones have
# one level more, so a weight on the edge of two levels can be a step off.
@pytest.mark.parametrize(
    ("formats", "most_steps", "tolerance"),
    [
        (("INT8", "INT8", "INT8"), 1.01, 2e-3),
        (("INT8_ASYM", "INT8_ASYM_G32", "INT8_ASYM"), 1.04, 2e-3),
        (("INT4_ASYM_G32", "INT4_ASYM_G32", "INT8_ASYM"), 1.01, 5e-3),
        (("INT4_G32", "INT4_G32", "INT8"), 1.01, 0.12),
        (("INT6", "INT5_G32", "FP16"), 1.01, 3e-2),
        (("INT3_ASYM_G32", "INT4", "INT8"), 1.01, 3e-2),
        (("FP8_E4M3_CHANNEL", "FP8_E5M2_CHANNEL", "FP8_E4M3_TENSOR"), 0, 5e-3),
    ],
)
def test_a_network_loses_what_we_say(formats: tuple[str, ...], most_steps: float, tolerance: float) -> None:
    export = TARGET.export(mlp_allocation(*formats), Options())
    assert tuple(each.format for each in export.layers if each.layer != "4") == formats
    theirs = quantized(trained_mlp(), export)
    apart = steps_apart(trained_mlp(), export, weights(theirs, export))
    assert max(apart.values(), default=0) <= most_steps
    plain = loss(trained_mlp())
    assert loss(theirs) == pytest.approx(our_loss(trained_mlp(), export), abs=tolerance * plain)


class Tied(nn.Module):
    """Guesses the next of some tokens; its head is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tok = nn.Embedding(40, 64)
        self.mix = nn.Linear(64, 64)
        self.head = nn.Linear(64, 40, bias=False)
        self.head.weight = self.tok.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.mix(self.tok(tokens)))


def test_a_tied_head_loses_what_we_say() -> None:
    tokens = torch.randint(0, 40, (8, 12), generator=torch.Generator().manual_seed(0))
    formats = {"tok": "INT3_ASYM_G32", "mix": "INT8_ASYM"}

    def loss_of(model: nn.Module) -> float:
        with torch.no_grad():
            return float(nn.functional.cross_entropy(model(tokens).flatten(0, 1), tokens.flatten()))

    plain = Tied().requires_grad_(False)
    network = TorchNetwork(plain, [tokens])
    export = TARGET.export(make_allocation(network, formats, "by hand"), Options())
    assert [each.format for each in export.layers] == list(formats.values())
    with network.replaced(QuantizedWeights(network).all(formats)):
        ours = loss_of(plain)
    theirs = quantized(Tied().requires_grad_(False), export)
    assert loss_of(theirs) == pytest.approx(ours, rel=2e-3)
    assert abs(ours - loss_of(plain)) > 0.02 * ours
    # One weight before, two tensors now: the export says so.
    assert theirs.head.weight is not theirs.tok.weight
    words = "tok and head share a weight: they are quantized alike, but torchao keeps it once for each"
    assert any(each.startswith(words) for each in export.notes)


@pytest.mark.parametrize(("kind", "shape"), [("Conv", (16, 32, 3, 3)), ("Linear", (64, 32))])
def test_modules_with_their_channels_elsewhere_are_left_alone(kind: str, shape: tuple[int, ...]) -> None:
    # torchao would take their inputs for outputs, and then does not run them.
    transposed = replace(layer("a", kind, shape, "INT8"), channel_axis=1)
    export = TARGET.export(Allocation("m", (transposed,)), Options())
    assert export.layers[0].format == "FP16"
    assert export.roundings[0].why.endswith("its output channels on axis 1")


def test_shapes_need_not_be_known() -> None:
    # Groups of 128 divide no row of this network; the bits tell it.
    known = mlp_allocation("INT4_G128", "INT4_G32", "INT8_ASYM_G32")
    unknown = replace(known, layers=tuple(replace(each, shape=None) for each in known.layers))
    export = TARGET.export(unknown, Options())
    assert [each.format for each in export.layers] == ["INT4", "INT4_G32", "FP32", "INT8_ASYM_G32"]
    assert document(export) == document(TARGET.export(known, Options()))
    theirs = quantized(trained_mlp(), export)
    assert loss(theirs) == pytest.approx(our_loss(trained_mlp(), export), abs=0.25 * loss(trained_mlp()))


def test_nvfp4_by_torchao() -> None:
    export = TARGET.export(mlp_allocation("NVFP4", "NVFP4", "FP32"), Options())
    theirs = quantized(trained_mlp(), export)
    assert loss(theirs) == pytest.approx(our_loss(trained_mlp(), export), abs=1e-4)


def test_embeddings_and_convolutions_run() -> None:
    layers = (
        layer("0", "Embedding", (100, 64), "INT4_G32"),
        layer("1", "Conv", (8, 64, 3, 3), "INT4"),
    )
    export = TARGET.export(Allocation("m", layers), Options())
    assert [each.format for each in export.layers] == ["INT4_G32", "INT4_PER_PLACE"]
    model = nn.ModuleList([nn.Embedding(100, 64), nn.Conv2d(64, 8, 3)]).requires_grad_(False)
    ids, image = torch.arange(8), torch.randn(1, 64, 5, 5, generator=torch.Generator().manual_seed(0))
    before = model[0](ids), model[1](image)
    quantized(model, export)
    for was, now in zip(before, (model[0](ids), model[1](image)), strict=True):
        assert 0 < (was - now).abs().max() < 0.5 * was.abs().max()


def test_attention_of_torch_runs() -> None:
    # It reads the weights of its parts without calling them, which no quantized weight bears.
    layers = (
        layer("self_attn.in_proj_weight", "Attention", (192, 64), "INT8"),
        layer("self_attn.out_proj", "Attention", (64, 64), "INT8"),
        layer("linear1", "Linear", (128, 64), "INT8"),
        layer("linear2", "Linear", (64, 128), "INT4_G32"),
    )
    export = TARGET.export(Allocation("m", layers), Options())
    assert [each.format for each in export.layers] == ["FP16", "FP16", "INT8", "INT4_G32"]
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(64, 4, 128, batch_first=True).eval().requires_grad_(False)
    batch = torch.randn(2, 5, 64)
    before = model(batch)
    assert 0 < (quantized(model, export)(batch) - before).abs().max() < 0.1 * before.abs().max()


def test_a_depthwise_kernel_is_left_alone() -> None:
    # A scale for each of its weights would take more than the weights.
    export = TARGET.export(Allocation("m", (layer("c", "Conv", (8, 1, 3, 3), "INT8"),)), Options())
    assert export.roundings[0].written == "FP16"


def test_a_model_of_many_layers() -> None:
    export = TARGET.export(llama(OURS, blocks=4), Options())
    configs = read(export).fqn_to_config
    assert set(configs) == {each.target_name for each in export.layers if each.format not in PLAIN}


class Bare(nn.Module):
    """Holds all its weights itself, under names that tell nothing, beside a module."""

    def __init__(self) -> None:
        super().__init__()
        self.u = nn.Parameter(torch.randn(32, 32))
        self.v = nn.Parameter(torch.randn(32, 32))
        self.gru = nn.GRU(32, 32, num_layers=2, batch_first=True)
        self.head = nn.Linear(32, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.gru(x @ self.u @ self.v)[0])


def test_several_parameters_of_one_module_left_alone() -> None:
    torch.manual_seed(0)
    model = Bare().eval().requires_grad_(False)
    names = [f"gru.weight_{kind}_l{at}" for at in range(2) for kind in ("ih", "hh")]
    layers = [layer(name, "Linear", (96, 32), "INT8") for name in names]
    layers += [layer(name, "Linear", (32, 32), "FP16") for name in "uv"]
    export = TARGET.export(
        Allocation("m", (*layers, layer("head", "Linear", (8, 32), "INT4_G32"))), Options()
    )
    assert [each.format for each in export.layers] == ["FP16"] * 6 + ["INT4_G32"]
    batch = torch.randn(2, 5, 32)
    before = model(batch)
    assert 0 < (quantized(model, export)(batch) - before).abs().max() < 0.3 * before.abs().max()
    assert all(type(each) is nn.Parameter for each in (model.u, model.v, *model.gru.parameters()))
