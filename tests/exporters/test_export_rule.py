"""What holds for every target: the rule of rounding, one format a layer, one a group."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from export_cases import READERS, allocations, document, layer, llama, names_for
from hypothesis import HealthCheck, given, settings

from evolve.allocations import Allocation, allocation_of
from evolve.errors import InputError
from evolve.exporters import TARGETS, Export, Options, find_target
from evolve.exporters.groups import format_groups, fused_into
from evolve.exporters.rounding import nearest
from evolve.exporters.storage import PLAIN, Storage, asked_storage, row_lengths
from evolve.formats import PrecisionFormat
from evolve.profiles import ModelProfile
from evolve.quantizers import QUANTIZERS

EVERY = pytest.mark.parametrize("target", TARGETS)


def exported(target: str, allocation: Allocation, **options: object) -> Export:
    names = {"names": names_for(target, allocation)} | options
    return TARGETS[target].export(allocation, Options(**names))


def test_every_target_has_a_reader() -> None:
    assert set(READERS) == set(TARGETS)


@EVERY
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(allocation=allocations())
def test_every_layer_gets_just_one_format(target: str, allocation: Allocation) -> None:
    export = exported(target, allocation)
    text = document(export)
    assert [each.layer for each in export.layers] == list(allocation.names)
    by_settings: dict[str, str] = {}
    for written, asked in zip(export.layers, allocation.layers, strict=True):
        assert written.format in TARGETS[target].formats
        found = READERS[target](text, written.target_name, asked.kind)
        assert len({repr(each) for each in found}) == 1, (written, found)
        if target not in ("llama.cpp", "onnxruntime"):  # which have a shared weight once
            for name in asked.aliases:
                assert READERS[target](text, name, asked.kind) == found
        quantized = found[0] not in (None, False, "f32", "f16", "bf16")
        assert quantized == (written.format not in PLAIN)
        if quantized and target != "onnxruntime":
            # The same setting never means two formats, but for the shapes that a kernel has.
            name = written.format.removesuffix("_PER_PLACE")
            assert by_settings.setdefault(repr(found[0]), name) == name


@EVERY
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(allocation=allocations())
def test_groups_share_a_format(target: str, allocation: Allocation) -> None:
    export = exported(target, allocation)
    fused = target not in ("llama.cpp", "onnxruntime", "mlx")
    names = [each.target_name for each in export.layers]
    for group in format_groups(allocation, names, fused):
        assert len({export.layers[at].format for at in group}) == 1


@EVERY
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(allocation=allocations())
def test_what_is_printed_is_what_changed(target: str, allocation: Allocation) -> None:
    export = exported(target, allocation)
    rounded = {each.layer: each for each in export.roundings}
    for asked, written in zip(allocation.layers, export.layers, strict=True):
        if asked.format == written.format:
            assert asked.name not in rounded
        if asked.name in rounded:
            rounding = rounded[asked.name]
            assert (rounding.asked, rounding.written) == (asked.format, written.format)
            assert rounding.why
            assert rounding.written_bits == written.bits
        else:
            # Another name only where it is stored the same way: clipped, or by llama.cpp's name.
            assert asked_storage(asked).code_bits <= written.bits + 1e-9
    total = sum(each.num_params for each in allocation.layers)
    pairs = zip(allocation.layers, export.layers, strict=True)
    assert export.avg_bits == pytest.approx(sum(a.num_params * w.bits for a, w in pairs) / total)


@EVERY
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(allocation=allocations())
def test_codes_never_lose_bits(target: str, allocation: Allocation) -> None:
    # All targets can leave a layer alone, so nothing is ever narrower than asked, but for FP32 in 16 bits.
    for asked, written in zip(allocation.layers, exported(target, allocation).layers, strict=True):
        assert written.bits >= asked_storage(asked).code_bits - 1e-9


STORAGES = {
    name: asked_storage(layer("a", "Linear", (64, 256), name))
    for name in (
        "INT4",
        "INT4_G32",
        "INT4_G128",
        "INT4_ASYM",
        "INT4_ASYM_G64",
        "INT4_TENSOR",
        "INT8_TENSOR",
        "INT8",
        "INT8_G32",
        "NF4",
        "MXFP4",
        "FP16",
    )
} | {"Q8_0": Storage("Q8_0", "integer", 8, 8.5, True, same=("INT8_G32",))}


@pytest.mark.parametrize(
    ("asked", "among", "right"),
    [
        ("INT4", "INT8 INT4 INT4_G32", "INT4"),
        ("INT4_G64", "INT4 INT4_G128 INT4_G32 INT8", "INT4_G32"),  # not fewer bits, scales counted
        ("INT4_G32", "INT4 INT4_G128 INT8", "INT4_G128"),  # the codes count, not a part of a bit for scales
        ("INT4_G32_MSE", "INT4_G128 INT4_G32", "INT4_G32"),  # clipping is no storage
        ("INT3", "INT8 INT4 FP16", "INT4"),
        ("INT5", "INT4 INT8 FP16", "INT8"),
        ("INT5", "INT4", "INT4"),  # nothing else exists
        ("LEVELS23", "INT4 INT8", "INT8"),  # 32/7 bits
        ("TERNARY", "INT4 INT8", "INT4"),
        ("INT4_ASYM_G32", "INT4_ASYM_G64 INT4_G32", "INT4_ASYM_G64"),
        ("INT4_ASYM_G64", "INT4_ASYM INT4_G32 INT4", "INT4_G32"),  # not fewer bits comes before symmetry
        ("INT4_ASYM", "INT4_ASYM_G64 INT8", "INT4_ASYM_G64"),
        ("MXFP4", "NF4 INT4_G32 FP16", "NF4"),
        ("FP8_E4M3", "INT8 FP16", "INT8"),
        ("INT8_G32", "Q8_0 INT8", "Q8_0"),
        ("FP32", "INT8 FP16", "FP16"),
        # Scales are no coarser than asked for.
        ("INT3_G32", "INT4 INT4_TENSOR INT4_G128 INT4_G32 INT8_G32", "INT4_G32"),
        ("INT3_G128", "INT4 INT4_TENSOR INT4_G128 INT4_G32", "INT4_G128"),
        ("INT3_G32", "INT4 INT4_TENSOR INT4_ASYM_G64", "INT4_ASYM_G64"),  # before symmetry
        ("INT3_G32", "INT4 INT4_TENSOR", "INT4"),
        ("INT6", "INT8_TENSOR INT8 INT8_G32", "INT8"),
        ("FP8_E4M3", "INT8_TENSOR INT8 INT8_G32 FP16", "INT8"),
        # One scale for all takes about two bits of a code, but leaving a layer alone takes more.
        ("INT3_G32", "INT4_TENSOR INT8 FP16", "INT8"),
        ("INT6", "INT8_TENSOR INT8_G32 FP16", "INT8_G32"),
        ("INT6", "INT8_TENSOR FP16", "INT8_TENSOR"),
        ("INT8", "INT8_TENSOR FP16", "INT8_TENSOR"),
        ("INT6_TENSOR", "INT8_TENSOR INT8", "INT8_TENSOR"),
    ],
)
def test_the_rule(asked: str, among: str, right: str) -> None:
    wanted = asked_storage(layer("a", "Linear", (64, 256), asked))
    assert nearest(wanted, [STORAGES[name] for name in among.split()]).name == right


def test_a_format_of_no_quantizer_is_known_by_its_bits() -> None:
    storage = asked_storage(layer("a", "Linear", (64, 256), "MY_OWN"))
    assert (storage.code_bits, storage.bits) == (4, 4.5)
    assert nearest(storage, list(STORAGES.values())).name == "INT4_G32"


@EVERY
def test_a_format_that_is_unknown_is_said(target: str) -> None:
    known = layer("b", "Linear", (64, 256), "INT4_MSE")
    export = exported(target, Allocation("m", (layer("a", "Linear", (64, 256), "INT9"), known)))
    why = {each.layer: each.why for each in export.roundings}
    assert why["a"] == "INT9 is unknown here, and taken by its bits"
    assert "unknown" not in why.get("b", "")
    assert "Formats that are unknown here, taken by their bits: INT9." in export.notes
    ours = exported(target, Allocation("m", (known,)))
    assert not [each for each in ours.notes if "unknown" in each]


@EVERY
@pytest.mark.parametrize(
    ("written", "meant"), [("int8", "INT8"), ("Int4_G32", "INT4_G32"), ("nf4", "NF4"), ("fp16", "FP16")]
)
def test_a_format_in_small_letters_is_refused(target: str, written: str, meant: str) -> None:
    layers = (layer("a", "Linear", (8, 64), "INT8"), layer("b", "LayerNorm", (64,), written))
    words = rf"layer 1 \(b\), format: no such format, found '{written}'\. Did you mean '{meant}'\?"
    with pytest.raises(InputError, match=words):
        exported(target, Allocation("m", layers))


def test_a_format_of_the_targets_own_is_known_to_it() -> None:
    asked = layer("a", "Linear", (64, 256), "Q6_K")
    own = exported("llama.cpp", Allocation("m", (asked,)))
    assert own.layers[0].format == "Q6_K"
    assert not own.roundings
    assert not [each for each in own.notes if "unknown" in each]
    assert any("bits: Q6_K." in each for each in exported("mlx", Allocation("m", (asked,))).notes)


def test_the_widest_of_a_group_decides() -> None:
    given = llama(["INT4_G128", "INT4_G128", "INT8", "INT4_G128", "INT3"])
    export = exported("compressed-tensors", given)
    written = {each.layer: each.format for each in export.layers}
    assert {written[f"model.layers.0.self_attn.{part}_proj"] for part in "qkv"} == {"INT8"}
    reasons = {each.layer: each.why for each in export.roundings}
    why = "shares its format with model.layers.0.self_attn.k_proj, which asks for INT8"
    assert reasons["model.layers.0.self_attn.q_proj"] == why
    # MLX and llama.cpp fuse nothing: each of the three keeps its own.
    names = {"names": {name: f"blk.0.{at}.weight" for at, name in enumerate(given.names)}}
    apart = TARGETS["llama.cpp"].export(given, Options(**names))
    assert len({each.format for each in apart.layers[1:4]}) == 2


def test_a_group_gets_what_all_its_layers_can_have() -> None:
    layers = (
        layer("a", "Linear", (8, 128), "INT4_G128"),
        layer("b", "Linear", (8, 96), "INT4_G128"),
        layer("c", "Linear", (8, 96), "INT4_G128"),
    )
    export = exported("torchao", Allocation("m", layers, ((0, 1),)))
    # Groups of 128 do not divide rows of 96; one scale a row is the next that has no fewer bits.
    assert [each.format for each in export.layers] == ["INT4", "INT4", "INT4"]
    why = "INT4_G128 does not fit this weight of shape 8×128, or one that shares its format"
    assert export.roundings[0].why == why


@pytest.mark.parametrize(
    ("format_", "shape", "lengths"),
    [
        ("INT8", (10, 48), (48,)),
        ("INT4_G128", (48, 48), (48,)),  # a group is longer than a row
        ("INT4_ASYM_G32", (48, 64), (32, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 3072)),
        ("FP16", (48, 64), ()),
        ("MY_OWN", (48, 64), ()),
    ],
)
def test_bits_tell_the_length_of_rows(format_: str, shape: tuple[int, int], lengths: tuple[int, ...]) -> None:
    known = layer("a", "Linear", shape, format_)
    unknown = replace(known, shape=None)
    assert row_lengths(unknown) == lengths
    assert row_lengths(known) == shape[1:]
    # So the export is the same as if the shape were known.
    for target in ("torchao", "mlx", "compressed-tensors"):
        pair = [TARGETS[target].export(Allocation("m", (each,)), Options()) for each in (known, unknown)]
        assert pair[0].layers == pair[1].layers
        assert document(pair[0]) == document(pair[1])


def test_a_profile_that_knows_shapes_leaves_nothing_to_guess() -> None:
    shape = (48, 64)
    name = "INT4_ASYM_G32"
    bits = QUANTIZERS[name].bits(shape)
    zero = np.zeros(1)
    known = ModelProfile(
        name="m",
        formats=(PrecisionFormat(name, bits, "integer"),),
        layer_type=("Linear",),
        layer_index=np.array([0]),
        num_params=np.array([math.prod(shape)]),
        weight_mean=zero,
        weight_std=zero,
        weight_range=zero,
        activation_range=zero,
        gradient_sensitivity=zero,
        sensitivity=np.zeros((1, 1)),
        layer_shapes=(shape,),
    )
    written = []
    for profile in (known, replace(known, layer_shapes=())):
        allocation = allocation_of(profile, np.array([0]))
        export = TARGETS["compressed-tensors"].export(allocation, Options(formats=("INT4_ASYM_G64", "INT8")))
        written.append(export.layers[0].format)
    # These bits could be those of rows of 32, which groups of 64 do not divide.
    assert written == ["INT4_ASYM_G64", "INT8"]


def test_ties_and_names_join() -> None:
    names = [f"a.{each}_proj" for each in ("q", "k", "gate", "up", "down")]
    layers = tuple(layer(name, "Linear", (8, 8), "INT8") for name in names)
    given = Allocation("m", layers, ((1, 2),))
    assert format_groups(given, names) == ((0, 1, 2, 3), (4,))
    assert format_groups(given, names, fused=False) == ((0,), (1, 2), (3,), (4,))


def test_fused_names() -> None:
    assert fused_into("model.layers.3.self_attn.q_proj") == ["model.layers.3.self_attn.qkv_proj"]
    assert fused_into("h.0.mlp.experts.7.w2") == ["h.0.mlp.experts"]
    assert fused_into("gate_proj") == ["gate_up_proj"]
    assert fused_into("lm_head") == []


@EVERY
def test_only_the_formats_allowed(target: str) -> None:
    allowed = ("INT8", "INT8_ASYM_G64", "Q8_0")
    given = llama(["INT4_G128", "INT2", "FP8_E4M3", "INT8_G32"])
    export = exported(target, given, formats=allowed)
    assert {each.format for each in export.layers} <= {*allowed, *PLAIN}
    assert {each.format for each in export.layers} & set(allowed)
    assert "INT4_G128 is not among the formats allowed" in {each.why for each in export.roundings} or (
        "INT4_G128" not in TARGETS[target].formats
    )


@EVERY
def test_formats_of_which_there_is_none(target: str) -> None:
    with pytest.raises(InputError, match=r"--formats: .* has none of these"):
        exported(target, llama(), formats=("INT7",))


def test_names_of_layers_that_are_not_there() -> None:
    with pytest.raises(InputError, match=r"network-names: no such layer.*lm_haed"):
        TARGETS["mlx"].export(llama(blocks=1), Options(names={"lm_haed": "head"}))


@EVERY
@pytest.mark.parametrize("shared", ["fc1", "other"])
def test_two_layers_under_one_name_are_refused(target: str, shared: str) -> None:
    layers = [layer(name, "Linear", (64, 64), "INT8") for name in ("fc1", "fc2")]
    given = Allocation("m", (layers[0], replace(layers[1], aliases=("head",))))
    names = dict.fromkeys(("fc1", "fc2"), shared)
    if target == "llama.cpp":
        # Where a file has several layers in one tensor, they share its line and its type.
        names = dict.fromkeys(("fc1", "fc2", "head"), "blk.0.attn_qkv.weight")
        assert document(exported(target, given, names=names)) == "^blk\\.0\\.attn_qkv\\.weight$=q8_0\n"
        return
    for more in (names, {"head": "fc1"}):
        with pytest.raises(InputError, match=r"network-names: fc1 and fc2 get one name, found '(fc1|other)'"):
            exported(target, given, names=more)
    # Two names of one weight may well be one there, and names may be exchanged.
    exported(target, given, names={"head": "fc2"})
    exchanged = exported(target, given, names={"fc1": "fc2", "fc2": "fc1"})
    assert [each.target_name for each in exchanged.layers] == ["fc2", "fc1"]


@EVERY
def test_experts_may_share_a_name(target: str) -> None:
    layers = [layer(f"mlp.experts.{at}.up_proj", "Linear", (64, 256), "INT4_ASYM_G32") for at in range(3)]
    place = "blk.0.ffn_up_exps.weight" if target == "llama.cpp" else "mlp.switch_mlp.up_proj"
    names = {each.name: place for each in layers}
    export = exported(target, Allocation("m", tuple(layers)), names=names)
    assert {each.target_name for each in export.layers} == {place}
    other = layer("mlp.experts.0.down_proj", "Linear", (64, 256), "INT8")
    if target != "llama.cpp":
        with pytest.raises(
            InputError, match=r"mlp.experts.0.up_proj and mlp.experts.0.down_proj get one name"
        ):
            exported(target, Allocation("m", (*layers, other)), names={**names, other.name: place})


def test_an_unknown_target() -> None:
    with pytest.raises(InputError, match=r"--to: no such target, found 'torchoa'\. Did you mean 'torchao'"):
        find_target("torchoa")


def test_types_of_layers_left_alone_are_said() -> None:
    norm, plain = layer("a", "LayerNorm", (8,), "FP32"), layer("b", "Linear", (8, 8), "FP16")
    quantized = layer("c", "Linear", (8, 8), "INT8")
    words = "The bits printed hold if the layers left alone are saved in "
    for layers, note in (
        ((quantized,), None),
        ((norm, quantized), "FP32."),
        ((plain, quantized), "FP16; with all in FP32 there are 21.000 a weight."),
        ((norm, plain), "their own types, FP32 and FP16; with all in FP32 there are 32.000 a weight."),
    ):
        for target in set(TARGETS) - {"mlx", "llama.cpp"}:
            notes = exported(target, Allocation("m", layers)).notes
            assert [each for each in notes if each.startswith(words)] == ([words + note] if note else [])


@EVERY
def test_every_name_of_a_shared_weight_is_written(target: str) -> None:
    shared = replace(layer("token_embd", "Embedding", (64, 256), "INT4_ASYM_G32"), aliases=("output",))
    alone = layer("blk.0.ffn_up", "Linear", (64, 256), "INT4_ASYM_G32")
    export = exported(target, Allocation("m", (shared, alone)), names={})
    text = document(export)
    names = (export.layers[0].target_name, "output.weight" if target == "llama.cpp" else "output")
    first, second = (READERS[target](text, name, "Embedding") for name in names)
    assert first == second
    assert len(first) == 1
    quantized = first[0] not in (None, False, "f16")
    assert quantized == (target not in ("gptqmodel", "onnxruntime"))
    kept_twice = "token_embd and output share a weight: they are quantized alike, but "
    said = [each for each in export.notes if each.startswith(kept_twice)]
    assert len(said) == (target in ("torchao", "compressed-tensors"))


def test_another_name_may_be_given_and_is_fused_too() -> None:
    shared = replace(layer("a.q_proj", "Attention", (64, 64), "INT4"), aliases=("b.q_proj",))
    beside = layer("b.k_proj", "Attention", (64, 64), "INT8")
    given = Allocation("m", (shared, beside))
    export = exported("torchao", given, names={"b.q_proj": "c.q_proj"})
    assert [each.format for each in export.layers] == ["INT4", "INT8"]
    export = exported("torchao", given)
    assert [each.format for each in export.layers] == ["INT8", "INT8"]
    assert set(json.loads(document(export))["_data"]["fqn_to_config"]) == {"a.q_proj", "b.q_proj", "b.k_proj"}


@pytest.mark.parametrize("target", ["torchao", "compressed-tensors", "llm-compressor", "modelopt"])
def test_a_weight_that_a_bare_parameter_shares_is_left_alone(target: str) -> None:
    shared = replace(layer("head", "Linear", (64, 256), "INT8"), aliases=("tower.tied_weight",))
    export = exported(target, Allocation("m", (shared,)))
    assert export.layers[0].format == "FP16"
    assert "shared with tower.tied_weight" in export.roundings[0].why
