"""The commands on networks as other people write them: a ResNet-18, a LLaMA, a sentence encoder."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import foreign_networks
import pytest
import torch
from compressed_tensors.quantization import QuantizationConfig

from evolve.allocations import load_allocation
from evolve.cli import main
from evolve.networks import TorchNetwork
from evolve.networks.metrics import Reference
from evolve.profile_files import load_profile

HERE = Path(__file__).parent
FORMATS = "INT2_G32,INT3_G32,INT4_G32,INT8,FP16"
#: The number of weight layers of each network: tied embeddings are one, norms are layers too.
NETWORKS = {"resnet": 41, "llama": 29, "sentence_encoder": 15}


@pytest.fixture(scope="module", params=NETWORKS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def folder(name, tmp_path_factory):
    return tmp_path_factory.mktemp(name)


@pytest.fixture
def call(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    torch.set_num_threads(1)

    def run(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["evolve", *map(str, words)])
        with pytest.raises(SystemExit) as leaving:
            main()
        written = capsys.readouterr()
        assert leaving.value.code == 0, written.err
        return written.out

    return run


def test_five_commands_lead_to_an_export_that_is_better_than_uniform(name, folder, call):
    model = f"{HERE / 'foreign_networks.py'}:{name}"
    call("profile", model, "--formats", FORMATS, "--output", "profile.json")
    assert load_profile(folder / "profile.json").num_layers == NETWORKS[name]
    call("allocate", "profile.json", "--budget", "avg_bits=4", "--output", "allocation.json")
    check = ("check-network", "allocation.json", "--model", model, "--profile", "profile.json")
    told = json.loads(call(*check, "--output", "checked.json", "--json"))
    measured = {each["label"]: each for each in told["measured"]}
    asked = measured["allocation"]
    assert 0.5 < asked["divergence"]["estimate"] / asked["predicted"] < 2
    handed_out = measured[told["handed_out"]]["divergence"]["estimate"]
    assert handed_out < 0.5 * min(told["uniform_measured"].values())
    checked = load_allocation(folder / "checked.json")
    assert checked.avg_bits <= 4

    call("export", "checked.json", "--to", "compressed-tensors", "--output", "exported.json")
    config = json.loads((folder / "exported.json").read_text())
    assert QuantizationConfig.model_validate(config).config_groups
    # The weights that are written give what was measured.
    call("apply", "checked.json", "--model", model, "--output", "weights.pt")
    network, _, held_out = getattr(foreign_networks, name)()
    before = TorchNetwork(network, held_out)
    batches = range(before.num_batches)
    reference = Reference(
        before.task, [before.outputs(at) for at in batches], [before.targets(at) for at in batches]
    )
    network.load_state_dict(torch.load(folder / "weights.pt"))
    found = reference.compare(before.outputs(at) for at in batches)
    assert found.divergence == pytest.approx(handed_out, rel=1e-3)
