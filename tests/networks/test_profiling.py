"""Profiles of real networks: right, resumable, reproducible."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from small_networks import build, pairs, trained_mlp
from torch import nn

from evolve.allocations import allocation_of
from evolve.errors import FormatError, NetworkError
from evolve.networks import TorchNetwork, measure_weights, profile_network, reference_of
from evolve.networks.applying import make_allocation
from evolve.profile_files import load_profile, parse_profile, profile_to_json, save_profile
from evolve.quantizers import find_quantizer

FORMATS = ("INT3", "INT4_G32", "INT8", "FP16", "FP32")


def make_profile(**options):
    return profile_network(TorchNetwork(*trained_mlp(), name="mlp"), FORMATS, **options)


@pytest.fixture(scope="module")
def profile():
    return make_profile()


def test_cells_are_what_a_full_forward_pass_gives(profile):
    network = TorchNetwork(*trained_mlp())
    reference = reference_of(network)
    for row, layer in enumerate(network.layers):
        weights = network.weights(layer.name)
        for column, name in enumerate(profile.format_names):
            rounded = find_quantizer(name).dequantized(weights)
            found = measure_weights(network, reference, {layer.name: rounded})
            assert profile.loss[row, column] == pytest.approx(found.divergence, rel=1e-9, abs=1e-15)
            change = found.loss - reference.unchanged.loss
            assert profile.measurements["change_of_loss"][row, column] == pytest.approx(change, abs=1e-12)


def test_a_profile_holds_what_is_known(profile):
    assert profile.layer_names == ("0", "2", "4")
    assert profile.layer_shapes == ((48, 64), (48, 48), (10, 48))
    assert profile.layer_type == ("Linear", "Linear", "Classifier")
    assert profile.num_params.tolist() == [64 * 48, 48 * 48, 480]
    column = profile.format_names.index("INT4_G32")
    assert profile.layer_bits[:, column].tolist() == [
        find_quantizer("INT4_G32").bits(shape) for shape in ((48, 64), (48, 48), (10, 48))
    ]
    assert profile.bits[column] == pytest.approx(
        (profile.num_params * profile.layer_bits[:, column]).sum() / profile.total_params
    )
    assert (profile.sensitivity[:, -1] == 0).all()
    assert profile.gradient_sensitivity.max() == 1
    assert set(profile.measurements) == {
        *("squared_error", "sqnr", "fisher_loss", "change_of_loss", "change_of_accuracy"),
        *("fisher", "hessian_trace", "condition_number"),
        *("activation_mean", "activation_std", "activation_magnitude", "input_rms"),
    }
    provenance = profile.provenance
    assert len(provenance["weights_sha256"]) == len(provenance["data_sha256"]) == 64
    assert provenance["evaluations"]["cells"] == 15
    assert provenance["unchanged"]["accuracy"] > 0.8


def test_cheap_signals_are_those_of_the_weights(profile):
    model, data = trained_mlp()
    weights = model[2].weight.detach().numpy().astype(float)
    assert profile.weight_std[1] == pytest.approx(weights.std())
    assert profile.measurements["condition_number"][1] == pytest.approx(np.linalg.cond(weights), rel=1e-3)
    hidden = np.concatenate([model[:3](images).detach().numpy() for images, _ in data])
    assert profile.activation_range[1] == pytest.approx(hidden.max() - hidden.min())


def test_profiles_are_read_back_and_are_the_same_each_time(profile, tmp_path):
    assert profile_to_json(make_profile()) == profile_to_json(profile)
    for name in ("mlp.json", "mlp.json.gz"):
        save_profile(profile, tmp_path / name)
        again = load_profile(tmp_path / name)
        assert profile_to_json(again) == profile_to_json(profile)
        assert again == profile


def test_a_language_model_has_perplexity_and_ties():
    found = profile_network(TorchNetwork(*build("language model")), ["INT4", "FP16"], hessian_probes=0)
    assert "change_of_perplexity" in found.measurements
    names = [[found.layer_names[at] for at in group] for group in found.tied_layers]
    assert names[1] == ["blocks.0.mlp.gate_proj", "blocks.0.mlp.up_proj"]
    assert found.provenance["notes"]["hessian_trace"] == "not measured: no probes"


def test_names_of_shared_weights_and_axes_travel_to_allocations():
    shared = TorchNetwork(*build("shared weights"))
    profile = parse_profile(profile_to_json(profile_network(shared, ["INT4", "FP16"], hessian_probes=0)))
    embedding = allocation_of(profile, np.zeros(profile.num_layers, dtype=int)).layers[0]
    assert (embedding.name, embedding.aliases) == ("embedding", ("head",))
    formats = dict.fromkeys(profile.layer_names, "INT4")
    assert make_allocation(shared, formats, "").layers[0].aliases == ("head",)
    model = nn.Sequential(nn.ConvTranspose2d(3, 5, 2), nn.Flatten(), nn.Linear(5 * 9 * 9, 4))
    transposed = profile_network(
        TorchNetwork(model, pairs(2, 3, 8, 8, classes=4)), ["INT8"], hessian_probes=0
    )
    layers = allocation_of(transposed, np.zeros(2, dtype=int)).layers
    assert [each.channel_axis for each in layers] == [1, 0]


def test_networks_without_gradients_are_nudged():
    found = profile_network(TorchNetwork(*build("in place")), ["INT8"])
    assert "no gradients" in found.provenance["notes"]["fisher"]
    assert (found.measurements["fisher"] > 0).all()
    assert "fisher_loss" not in found.measurements


def test_declared_ties():
    assert make_profile(ties=[["0", "4"]]).tied_layers == ((0, 2),)
    assert make_profile(ties=[]).tied_layers == ()


def test_a_resumed_profile_equals_an_uninterrupted_one(profile, tmp_path):
    journal = tmp_path / "journal"
    make_profile(journal=journal)
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) == 2 + 15
    for kept, torn in ((1, b""), (2, b'{"kind": "ce'), (9, lines[9][:-1]), (17, b"")):
        journal.write_bytes(b"".join(lines[:kept]) + torn)
        assert profile_to_json(make_profile(journal=journal, resume=True)) == profile_to_json(profile)
        assert journal.read_bytes() == b"".join(lines)


@pytest.mark.parametrize(
    "damaged", [b'{"kind": "ce', b"\x00\x00", b"\xff\xfe", b"", b"[1]", b'{"no": "kind"}']
)
@pytest.mark.parametrize("number", [2, 9, 17])
def test_a_damaged_line_of_a_journal_costs_that_line_only(profile, tmp_path, number, damaged):
    journal = tmp_path / "journal"
    make_profile(journal=journal)
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[number - 1] = damaged + b"\n"
    journal.write_bytes(b"".join(lines) + b'{"kind": "ce')
    before = journal.read_bytes()
    with pytest.raises(NetworkError, match="Remove this line") as caught:
        make_profile(journal=journal, resume=True)
    assert (caught.value.file, caught.value.place) == (str(journal), f"line {number}")
    assert journal.read_bytes() == before
    del lines[number - 1]
    journal.write_bytes(b"".join(lines))
    assert profile_to_json(make_profile(journal=journal, resume=True)) == profile_to_json(profile)
    after = journal.read_bytes().splitlines(keepends=True)
    assert after[:-1] == lines  # one line is new


def test_a_journal_without_its_heading_says_what_is_lost(tmp_path):
    journal = tmp_path / "journal"
    make_profile(journal=journal)
    journal.write_bytes(b"}" + journal.read_bytes())
    with pytest.raises(NetworkError, match="what the other lines measured: restore it") as caught:
        make_profile(journal=journal, resume=True)
    assert caught.value.place == "line 1"


def test_a_journal_of_something_else_is_refused(tmp_path):
    journal = tmp_path / "journal"
    make_profile(journal=journal)
    with pytest.raises(NetworkError, match=r"unfinished profile is here.*--resume"):
        make_profile(journal=journal)
    with pytest.raises(NetworkError, match=r"something else.*seed|seed.*something else"):
        make_profile(journal=journal, resume=True, seed=1)
    model, data = trained_mlp()
    other = TorchNetwork(model, data[::-1], name="mlp")
    with pytest.raises(NetworkError, match=r"data_sha256.*shuffling"):
        profile_network(other, FORMATS, journal=journal, resume=True)


def test_bad_formats_are_explained():
    network = TorchNetwork(*trained_mlp())
    with pytest.raises(FormatError, match="INT9"):
        profile_network(network, ["INT9"])
    for formats in ([], "INT4", ["INT4", "INT4"]):
        with pytest.raises(NetworkError, match="list of names"):
            profile_network(network, formats)


def test_progress_is_told(tmp_path):
    told = []
    make_profile(progress=lambda *news: told.append(news))
    assert told == [(0, 15, "0"), (5, 15, "2"), (10, 15, "4"), (15, 15, "")]


SLOW = """
import sys
sys.path.insert(0, {folder!r})
from small_networks import build

def network():
    return build("language model")
"""


def test_a_killed_profile_goes_on_where_it_was(tmp_path):
    folder = str(Path(__file__).parent)
    (tmp_path / "mine.py").write_text(SLOW.format(folder=folder))
    command = [sys.executable, "-m", "evolve", "profile", "mine:network", "--output", "model.json"]
    command += ["--formats", "INT2,INT3,INT4,INT5,INT6,INT8,INT4_MSE,INT4_OCTAV,FP16", "--resume"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    journal = tmp_path / "model.json.journal"
    killed = 0
    for lines in (20, 90):
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while process.poll() is None and not (
            journal.exists() and len(journal.read_bytes().splitlines()) > lines
        ):
            time.sleep(0.002)
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            killed += 1
        process.wait()
    assert killed == 2
    with journal.open("ab") as file:
        file.write(b'{"kind": "cell", "layer": "emb')
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True)
    resumed = (tmp_path / "model.json").read_bytes()
    assert not journal.exists()
    (tmp_path / "model.json").unlink()
    subprocess.run(command[:-1], cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert (tmp_path / "model.json").read_bytes() == resumed
    assert json.loads(resumed)["provenance"]["task"] == "language"
