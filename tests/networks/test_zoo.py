"""The script that trains the zoo: same seed, same profile; what is there is not made again."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs torch: pip install 'evolve-precision[torch]'")
pytest.importorskip("sklearn", reason="needs scikit-learn: pip install scikit-learn")

from evolve.datasets import find_dataset
from evolve.joint import joint_of
from evolve.profile_files import load_profile

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))
try:
    import train_zoo
    from zoo import architectures, facts
    from zoo.allocating import BANDS, HALF_BAND, choose_allocations
    from zoo.catalogue import FAMILIES, SHIPPED, Entry, catalogue
    from zoo.data import SOURCES
    from zoo.measuring import FORMATS, networks_of
    from zoo.shipping import make
    from zoo.training import WEIGHTS, trained
finally:
    sys.path.remove(str(BENCHMARKS))

DATASET = find_dataset("measured")
TINY = Entry("mlp-wine-8-s0", "mlp", "wine", partial(architectures.mlp, 13, 3, (8,)), 0, 40, 1e-2)


def made(entry, folder):
    make(entry, folder, folder / "weights")
    return load_profile(folder / entry.split / f"{entry.name}.json.gz")


def test_the_same_seed_gives_the_same_bytes(tmp_path):
    profiles = [made(TINY, tmp_path / each) for each in "ab"]
    assert profiles[0].content_hash == profiles[1].content_hash
    files = [sorted((tmp_path / each).rglob("*.gz")) for each in "ab"]
    assert [path.read_bytes() for path in files[0]] == [path.read_bytes() for path in files[1]]
    other = made(replace(TINY, seed=1), tmp_path / "c")
    assert other.provenance["weights_sha256"] != profiles[0].provenance["weights_sha256"]


def test_the_script_makes_what_is_missing_and_no_more(tmp_path, monkeypatch, capsys):
    words = [
        "train_zoo.py",
        "--only",
        "mlp-wine",
        "--out",
        str(tmp_path),
        "--weights",
        str(tmp_path / "kept"),
    ]
    monkeypatch.setattr(sys, "argv", words)
    train_zoo.main()
    assert "| **all** |" in capsys.readouterr().out
    dataset = find_dataset(tmp_path / "measured")
    (profile,) = dataset.train
    assert set(profile.format_names) == set(FORMATS)
    assert len(joint_of(dataset)[profile.name]) >= 100
    shipped = next(each for each in DATASET.train if each.name == profile.name)
    assert profile.layer_names == shipped.layer_names
    if profile.provenance["weights_sha256"] == shipped.provenance["weights_sha256"]:
        assert profile.loss == pytest.approx(shipped.loss, rel=1e-3, abs=1e-6)
    monkeypatch.setattr(train_zoo, "make", None)
    train_zoo.main()


def test_profiles_are_those_of_the_weights_that_ship():
    profiles = {profile.name: profile for _, profile in DATASET.splits()}
    for entry in catalogue():
        network, _ = networks_of(entry, trained(entry))
        assert network.provenance["weights_sha256"] == profiles[entry.name].provenance["weights_sha256"]
        if entry.data != "text":  # that of Python's own help, which differs between versions of Python
            assert network.provenance["data_sha256"] == profiles[entry.name].provenance["data_sha256"]


@pytest.mark.parametrize("name", ["mlp-wine-32x32-s0", "cnn-digits-16x24x24-s0"])
def test_they_can_be_measured_again(name, tmp_path):
    entry = next(each for each in catalogue() if each.name == name)
    make(entry, tmp_path, WEIGHTS)
    again = load_profile(tmp_path / entry.split / f"{name}.json.gz")
    (shipped,) = (profile for _, profile in DATASET.splits() if profile.name == name)
    assert again.loss == pytest.approx(shipped.loss, rel=1e-3, abs=1e-6)


def test_what_ships_is_what_the_script_makes():
    entries = {each.name: each for each in catalogue()}
    assert {profile.name for _, profile in DATASET.splits()} == set(entries)
    assert set(SHIPPED) <= set(entries)
    for split, profile in DATASET.splits():
        assert entries[profile.name].split == split
        assert profile.provenance["trained"]["family"] == entries[profile.name].family
        assert set(profile.format_names) == set(FORMATS)


@pytest.mark.parametrize("split", FAMILIES)
def test_the_allocations_that_were_measured_are_those_that_the_script_chooses(split):
    joint = joint_of(DATASET)
    for profile in DATASET.split(split)[:2]:
        chosen = choose_allocations(profile, profile.seed)
        assert list(chosen) == [tuple(row) for row in joint[profile.name].allocations.tolist()]
        assert tuple(chosen.values()) == joint[profile.name].sources


def test_every_family_has_one_split():
    families = [each for split in FAMILIES.values() for each in split]
    assert sorted(families) == sorted({each.family for each in catalogue()})


def test_the_tables_of_the_page_are_those_of_the_data():
    page = (Path(DATASET.source) / "README.md").read_text(encoding="utf-8")
    found = facts.read(DATASET)
    for table in (
        facts.adding_up,
        facts.ranks,
        facts.searched,
        facts.concentration,
        facts.seeds,
        facts.networks,
    ):
        assert table(found) in page


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "text"])
def test_no_sample_is_in_two_parts(name):
    source = SOURCES[name]()
    parts = (source.training, source.calibration, source.held_out)
    seen = [{each.numpy().tobytes() for each in part.inputs} for part in parts]
    assert not seen[0] & seen[1]
    assert not seen[0] & seen[2]
    assert not seen[1] & seen[2]
    assert min(len(part.inputs) for part in parts) > 20
    assert all(int(part.labels.max()) < source.classes for part in parts)


def test_random_allocations_lie_in_their_bands():
    profile = DATASET.valid[0]
    rows = np.arange(profile.num_layers)
    drawn = dict.fromkeys(BANDS, 0)
    for choice, source in choose_allocations(profile, 5).items():
        word, _, band = source.partition(" ")
        if word == "random" and band:
            bits = profile.cost_table("size")[rows, choice].sum() / profile.total_params
            assert abs(bits - float(band)) <= HALF_BAND
            drawn[float(band)] += 1
    assert max(drawn.values()) > 10
