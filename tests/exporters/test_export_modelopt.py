from __future__ import annotations

import fnmatch
import warnings
from pathlib import Path

import pytest
from export_cases import FORMATS as OURS
from export_cases import document, layer, llama

from evolve.allocations import Allocation
from evolve.exporters import TARGETS, Options

yaml = pytest.importorskip("yaml")

TARGET = TARGETS["modelopt"]


def test_later_entries_win() -> None:
    export = TARGET.export(llama(["INT4_G128", "NVFP4", "FP8_E4M3_TENSOR", "INT8"], blocks=11), Options())
    entries = yaml.safe_load(document(export))["quantize"]["quant_cfg"]
    assert entries[0] == {"quantizer_name": "*", "enable": False}
    # Each entry after the first matches just one layer, so any order of them means the same.
    names = [f"{each.target_name}.weight_quantizer" for each in export.layers]
    for entry in entries[1:]:
        assert len(fnmatch.filter(names, entry["quantizer_name"])) == 1
    assert len(entries) - 1 == len([each for each in export.layers if each.format not in ("FP16", "FP32")])
    # What activations do is not asked for.
    assert not [each for each in entries[1:] if fnmatch.fnmatch("a.input_quantizer", each["quantizer_name"])]


def test_settings_of_formats() -> None:
    wanted = {
        "INT8": {"num_bits": 8, "narrow_range": True, "axis": 0},
        "INT4_G64": {"num_bits": 4, "narrow_range": True, "block_sizes": {-1: 64}},
        "FP8_E4M3_TENSOR": {"num_bits": [4, 3], "axis": None},
        "NVFP4": {"num_bits": [2, 1], "block_sizes": {-1: 16, "type": "dynamic", "scale_bits": [4, 3]}},
        "MXFP4": {"num_bits": [2, 1], "block_sizes": {-1: 32, "type": "dynamic", "scale_bits": [8, 0]}},
    }
    layers = tuple(layer(name, "Linear", (64, 128), name) for name in wanted)
    entries = yaml.safe_load(document(TARGET.export(Allocation("m", layers), Options())))["quantize"]
    found = {each["quantizer_name"].partition(".")[0]: each.get("cfg") for each in entries["quant_cfg"][1:]}
    assert found == wanted


def test_names_with_signs_of_patterns() -> None:
    one = Allocation("m", (layer("a[0]*", "Linear", (8, 8), "INT8"),))
    pattern = yaml.safe_load(document(TARGET.export(one, Options())))["quantize"]["quant_cfg"][1]
    assert fnmatch.fnmatch("a[0]*.weight_quantizer", pattern["quantizer_name"])
    assert not fnmatch.fnmatch("a0x.weight_quantizer", pattern["quantizer_name"])


@pytest.fixture
def _quiet() -> None:
    warnings.simplefilter("ignore")


@pytest.mark.usefixtures("_quiet")
def test_modelopt_reads_it(tmp_path: Path) -> None:
    pytest.importorskip("modelopt.torch.quantization", exc_type=ImportError)
    from modelopt.recipe import load_recipe

    file = tmp_path / "modelopt.yaml"
    export = TARGET.export(
        llama([name for name in OURS if "_G" in name or "FP" in name], blocks=30), Options()
    )
    file.write_text(document(export), encoding="utf-8")
    quantize = load_recipe(file).quantize
    assert len(quantize.quant_cfg) == len(yaml.safe_load(document(export))["quantize"]["quant_cfg"])


# ModelOpt's range of integers is the same as ours, so only the 16 bits of our scales differ.
@pytest.mark.usefixtures("_quiet")
@pytest.mark.parametrize(
    "formats",
    [("INT4_G32", "INT3", "INT8_TENSOR"), ("INT8", "INT6", "INT4"), ("FP8_E4M3_CHANNEL", "INT5_G32", "FP16")],
)
def test_a_network_loses_what_we_say(formats: tuple[str, ...], tmp_path: Path) -> None:
    pytest.importorskip("modelopt.torch.quantization", exc_type=ImportError)
    pytest.importorskip("sklearn")
    import modelopt.torch.quantization as mtq
    from digits_networks import loss, mlp_allocation, our_loss, trained_mlp
    from modelopt.recipe import load_recipe

    export = TARGET.export(mlp_allocation(*formats), Options())
    assert tuple(each.format for each in export.layers if each.layer != "4") == formats
    file = tmp_path / "modelopt.yaml"
    file.write_text(document(export), encoding="utf-8")
    theirs = mtq.quantize(trained_mlp(), load_recipe(file).quantize, forward_loop=lambda _: None)
    assert loss(theirs) == pytest.approx(our_loss(trained_mlp(), export), abs=1e-2 * loss(trained_mlp()))


@pytest.mark.usefixtures("_quiet")
@pytest.mark.parametrize("name", ["INT3", "FP8_E4M3_CHANNEL"])
def test_a_transposed_convolution_is_scaled_as_it_was_measured(name: str, tmp_path: Path) -> None:
    pytest.importorskip("modelopt.torch.quantization", exc_type=ImportError)
    import modelopt.torch.quantization as mtq
    import torch
    from modelopt.recipe import load_recipe

    from evolve.networks import TorchNetwork
    from evolve.networks.applying import QuantizedWeights, make_allocation

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.ConvTranspose2d(4, 6, 3)).requires_grad_(False)
    # Inputs of different sizes, so that it tells which axis has the scales.
    model[0].weight *= torch.tensor([0.1, 1, 2, 4]).reshape(4, 1, 1, 1)
    images = torch.randn(2, 4, 5, 5)
    network = TorchNetwork(model, [images])
    export = TARGET.export(make_allocation(network, {"0": name}, "by hand"), Options())
    assert export.layers[0].format == name
    with network.replaced(QuantizedWeights(network).all({"0": name})):
        ours = model(images)
    file = tmp_path / "modelopt.yaml"
    file.write_text(document(export), encoding="utf-8")
    theirs = mtq.quantize(model, load_recipe(file).quantize, forward_loop=lambda _: None)
    torch.testing.assert_close(theirs(images), ours, rtol=1e-2, atol=1e-2)
