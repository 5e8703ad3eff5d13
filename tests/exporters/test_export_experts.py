"""Experts stacked in one parameter, in the words of each target, and in those that install here at work."""

from __future__ import annotations

import copy
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from export_cases import document, layer

from evolve.allocations import Allocation
from evolve.exporters import TARGETS, Export, Options
from evolve.exporters.storage import PLAIN

yaml = pytest.importorskip("yaml")

PATH = "model.layers.0.mlp.experts"
E, WIDTH, INNER = 4, 64, 32
MODULES = [f"{PATH}.{at}.{each}_proj" for at in range(12) for each in ("gate", "up", "down")]


def stacks(gate_up: str, down: str, axis: int = 1) -> Allocation:
    shapes = {"gate_up_proj": (E * 2 * INNER, WIDTH), "down_proj": (E * WIDTH, INNER)}
    formats = {"gate_up_proj": gate_up, "down_proj": down}
    layers = [layer(f"{PATH}.{each}", "Linear", shapes[each], formats[each]) for each in shapes]
    router = layer("model.layers.0.mlp.gate", "Linear", (E, WIDTH), "FP16")
    return Allocation("m", (*(replace(each, num_experts=E, channel_axis=axis) for each in layers), router))


def export(target: str, *formats: str, axis: int = 1) -> Export:
    return TARGETS[target].export(stacks(*formats, axis=axis), Options())


@pytest.mark.parametrize("axis", [1, 2])
@pytest.mark.parametrize("target", ["compressed-tensors", "llm-compressor"])
def test_a_pattern_for_the_modules_of_each_expert(target, axis):
    made = export(target, "INT4_G32", "INT8_G32", axis=axis)
    # vLLM loads all experts of a block in one format.
    assert [each.format for each in made.layers] == ["INT8_G32", "INT8_G32", "FP16"]
    text = document(made)
    found = json.loads(text) if target == "compressed-tensors" else yaml.safe_load(text)
    if target == "llm-compressor":
        found = found["quant_stage"]["quant_modifiers"]["QuantizationModifier"]
    (group,) = found["config_groups"].values()
    patterns = [each.removeprefix("re:") for each in group["targets"]]
    assert all(each.startswith("re:") for each in group["targets"])
    matched = {name for name in MODULES if any(re.match(each, name) for each in patterns)}
    assert matched == set(MODULES)
    others = ["model.layers.0.mlp.gate", PATH.replace("0", "10") + ".0.up_proj", f"{PATH}.0.up_proj_x"]
    assert not [name for name in others for each in patterns if re.match(each, name)]


def test_gptqmodel():
    rules = json.loads(document(export("gptqmodel", "INT4_G32", "INT4_G32")))["dynamic"]
    hits = {name: [each for each in rules if re.match(each[2:], name)] for name in (*MODULES, PATH)}
    assert all(len(each) == (1 if name != PATH else 2) for name, each in hits.items())
    assert {each[0] for rules in hits.values() for each in rules} == {"+"}
    skipped = json.loads(document(export("gptqmodel", "FP16", "FP16")))["dynamic"]
    assert all(each.startswith("-:") for each in skipped)


def test_llama_cpp():
    pytest.importorskip("gguf")
    options = Options(architecture="qwen3moe")
    text = document(TARGETS["llama.cpp"].export(stacks("INT4_G32", "INT8_G32"), options))
    types = {"gate": "q4_0", "up": "q4_0", "down": "q8_0"}
    lines = {line for line in text.splitlines() if "exps" in line}
    assert lines == {rf"^blk\.0\.ffn_{part}_exps\.weight$={kind}" for part, kind in types.items()}


def test_mlx_keeps_them_stacked_under_another_name():
    made = json.loads(document(export("mlx", "INT4_ASYM_G32", "INT8_ASYM_G32")))["quantization"]
    for place in ("model.layers.0.mlp.switch_mlp", PATH):
        assert [made[f"{place}.{part}_proj"]["bits"] for part in ("gate", "up", "down")] == [4, 4, 8]
    # Those that a network keeps apart are one there, and get one format.
    apart = [
        layer(f"{PATH}.{at}.up_proj", "Linear", (INNER, WIDTH), name)
        for at, name in enumerate(("INT4_ASYM_G32", "INT5_ASYM_G32"))
    ]
    made = json.loads(document(TARGETS["mlx"].export(Allocation("m", tuple(apart)), Options())))
    assert made["quantization"]["model.layers.0.mlp.switch_mlp.up_proj"]["bits"] == 5


@pytest.mark.parametrize(("target", "axis"), [("torchao", 2), ("modelopt", 2)])
def test_those_that_are_the_other_way_round_are_left_alone_where_nothing_can_run_them(target, axis):
    made = export(target, "INT4", "INT4", axis=axis)
    assert {each.format for each in made.layers} <= {"FP16", "FP32", "BF16"}
    assert all("cannot quantize this weight" in each.why for each in made.roundings)


def test_stacks_of_unknown_names_are_left_alone():
    other = replace(layer("blocks.0.w1", "Linear", (E * INNER, WIDTH), "INT8"), num_experts=E, channel_axis=1)
    for name in ("compressed-tensors", "llm-compressor", "gptqmodel", "modelopt", "torchao", "mlx"):
        made = TARGETS[name].export(Allocation("m", (other,)), Options())
        assert made.layers[0].format in ("FP16", "FP32", "BF16")
        assert made.roundings


@pytest.fixture(scope="module")
def network():
    """A mixture of experts of transformers and what it is run on."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from evolve.networks import TorchNetwork

    sizes = {"hidden_size": WIDTH, "intermediate_size": WIDTH, "moe_intermediate_size": INNER, "head_dim": 16}
    sizes |= {"vocab_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2}
    sizes |= {"num_experts": E, "num_experts_per_tok": 2, "pad_token_id": 0}
    torch.manual_seed(0)
    model = transformers.Qwen3MoeForCausalLM(transformers.Qwen3MoeConfig(**sizes)).requires_grad_(False)
    model.set_experts_implementation("eager")
    for each in model.parameters():
        # Weights as large as trained ones are, so that what they lose can be seen.
        if each.ndim > 1:
            each.mul_(8)
    for each in (model.model.layers[0].mlp.experts.gate_up_proj, model.model.layers[0].mlp.experts.down_proj):
        # Experts of different sizes, so that one scale for several would show.
        each.mul_(torch.tensor([0.2, 1, 0.5, 2]).reshape(E, 1, 1))
    ids = torch.randint(1, 64, (8, 16))
    return TorchNetwork(model.eval(), [{"input_ids": ids, "labels": ids}])


def losses(network, target: str, name: str):
    """Return what a format of the experts makes of the outputs by ours, and the target's export of it."""
    from evolve.networks.applying import QuantizedWeights, make_allocation

    formats = {each.name: name if each.num_experts > 1 else "FP32" for each in network.layers}
    made = TARGETS[target].export(make_allocation(network, formats, "by hand"), Options())
    assert {each.format for each in made.layers if "experts" in each.layer} == {name}
    before = network.outputs(0)
    ours = network.outputs(0, QuantizedWeights(network).all(formats)) - before
    return made, before, ours


def size(change) -> float:
    return float((change**2).mean()) ** 0.5


def agree(theirs, ours) -> None:
    # Their scales have more bits than ours: less than half of the error comes from that.
    assert size(ours) > 1e-3
    assert size(theirs - ours) < 0.4 * size(ours)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["INT8", "FP8_E4M3_CHANNEL"])
def test_torchao_runs_them(network, name):
    pytest.importorskip("torchao")
    from torchao.core.config import config_from_dict
    from torchao.quantization import quantize_

    made, before, ours = losses(network, "torchao", name)
    assert any("set_experts_implementation('eager')" in each for each in made.notes)
    model = copy.deepcopy(network.model)
    quantize_(model, config_from_dict(json.loads(document(made))), filter_fn=None)
    theirs = model(**network.batches[0].keywords).logits.float().numpy() - before
    if name == "INT8":
        # With its own range of integers each weight is rounded anew, by as much as ours.
        assert 0.7 < size(theirs) / size(ours) < 1.5
    else:
        agree(theirs, ours)


@pytest.mark.filterwarnings("ignore")
def test_torchao_leaves_both_stacks_of_a_module_alone(network):
    pytest.importorskip("torchao")
    from torchao.core.config import config_from_dict
    from torchao.quantization import quantize_

    from evolve.networks.applying import make_allocation

    formats = {each.name: "INT4_G32" if len(each.shape) > 1 else "FP32" for each in network.layers}
    allowed = Options(formats=("INT4_G32",))
    made = TARGETS["torchao"].export(make_allocation(network, formats, "by hand"), allowed)
    assert {each.format for each in made.layers if "experts" in each.layer} == {"FP16"}
    model = copy.deepcopy(network.model)
    before = copy.deepcopy(model.model.layers[0].mlp.experts.state_dict())
    quantize_(model, config_from_dict(json.loads(document(made))), filter_fn=None)
    after = model.model.layers[0].mlp.experts.state_dict()
    assert all(after[name].equal(each) for name, each in before.items())
    # Routers are of a class of their own there, which torchao quantizes as any module with a weight.
    assert type(model.model.layers[0].mlp.gate.weight).__name__ == "IntxUnpackedToInt8Tensor"
    assert model(**network.batches[0].keywords).logits.isfinite().all()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["INT3", "INT4_G32"])
def test_modelopt_runs_them(network, name, tmp_path: Path):
    pytest.importorskip("modelopt.torch.quantization", exc_type=ImportError)
    import modelopt.torch.quantization as mtq
    from modelopt.recipe import load_recipe

    made, before, ours = losses(network, "modelopt", name)
    file = tmp_path / "modelopt.yaml"
    file.write_text(document(made), encoding="utf-8")
    theirs = mtq.quantize(
        copy.deepcopy(network.model), load_recipe(file).quantize, forward_loop=lambda _: None
    )
    agree(theirs(**network.batches[0].keywords).logits.numpy() - before, ours)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["INT4_ASYM_G32", "INT8_ASYM"])
def test_llm_compressor_runs_them(network, name):
    pytest.importorskip("llmcompressor", exc_type=ImportError)
    from llm_compressor import quantized
    from llmcompressor.modeling.moe.linearize import linearize_moe

    made, before, ours = losses(network, "llm-compressor", name)
    model = copy.deepcopy(network.model)
    linearize_moe(model)
    quantized(model, document(made))
    agree(model(**network.batches[0].keywords).logits.detach().numpy() - before, ours)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", ["compressed-tensors", "modelopt"])
def test_what_counts_as_quantized_is_quantized(network, target, tmp_path: Path):
    from evolve.networks.applying import make_allocation

    formats = {each.name: "INT4_G32" if len(each.shape) > 1 else "FP32" for each in network.layers}
    made = TARGETS[target].export(make_allocation(network, formats, "by hand"), Options())
    model = copy.deepcopy(network.model)
    if target == "modelopt":
        pytest.importorskip("modelopt.torch.quantization", exc_type=ImportError)
        import modelopt.torch.quantization as mtq
        from modelopt.recipe import load_recipe

        file = tmp_path / "modelopt.yaml"
        file.write_text(document(made), encoding="utf-8")
        mtq.quantize(model, load_recipe(file).quantize, forward_loop=lambda _: None)
        modules = [
            name
            for name, each in model.named_modules()
            if getattr(each, "weight_quantizer", None) is not None
        ]
        done = {name for name in modules if model.get_submodule(name).weight_quantizer.is_enabled}
    else:
        pytest.importorskip("compressed_tensors")
        from compressed_tensors.quantization import QuantizationConfig, apply_quantization_config

        apply_quantization_config(model, QuantizationConfig.model_validate_json(document(made)))
        done = {name for name, each in model.named_modules() if hasattr(each, "quantization_scheme")}
    counted = {each.layer for each in made.layers if each.format not in PLAIN}
    assert done == {name for name in counted if "experts" not in name}
    (router,) = [each for each in made.layers if each.layer.endswith("mlp.gate")]
    assert router.format == "FP16"
