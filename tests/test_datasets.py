"""Data sets: found by name or path in every layout, explained when they are not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import profiles

from evolve.datasets import (
    SPLITS,
    SUITES,
    UNSEEN_FAMILIES,
    Dataset,
    available_datasets,
    dataset_folders,
    find_dataset,
    write_dataset,
)
from evolve.errors import ProfileError
from evolve.profile_files import save_profile
from evolve.synthetic import FAMILIES, generate

REFERENCE = Path(__file__).parents[1] / "datasets" / "reference"
MODELS = generate(6, seed=1, families=["mobilenet"])


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def lay_out(folder, **splits):
    """Write models as split folders: lay_out(folder, train={"a.json": model})."""
    for split, files in splits.items():
        (folder / split).mkdir(parents=True)
        for name, model in files.items():
            save_profile(model, folder / split / name)
    return folder


def fails(spec, *said):
    with pytest.raises(ProfileError) as caught:
        find_dataset(spec)
    assert all(words in str(caught.value) for words in said), caught.value


def names(profiles_of_a_split):
    return [profile.name for profile in profiles_of_a_split]


# By name


@pytest.mark.parametrize("spec", [None, "reference"])
def test_the_published_models_are_the_default_from_any_folder(here, spec):
    dataset = find_dataset(spec)
    assert dataset.name == "reference"
    assert [names(dataset.split(split)) for split in SPLITS] == [["train"], ["valid"], ["test"]]
    assert [profile.num_layers for _, profile in dataset.splits()] == [131, 99, 27]
    assert not dataset.single_file


def test_the_working_directory_comes_first(here):
    lay_out(here / "datasets" / "mine", train={"a.json": MODELS[0]})
    lay_out(here / "datasets" / "reference", test={"a.json": MODELS[1]})
    assert dataset_folders()[0] == here / "datasets"
    assert find_dataset("mine").train == MODELS[:1]
    assert find_dataset("reference").test == MODELS[1:2]
    listed = dict(available_datasets())
    assert listed["reference"] == str(here / "datasets" / "reference")
    assert list(listed) == ["mine", "reference", "hawqv3", "measured", *SUITES]


def test_a_checkout_lists_its_folder_once(monkeypatch):
    monkeypatch.chdir(REFERENCE.parents[1])
    assert len(dataset_folders()) == 1
    assert [name for name, _ in available_datasets()].count("reference") == 1


def test_a_name_wins_over_a_folder_that_happens_to_be_here(here):
    (here / "reference").mkdir()
    assert len(find_dataset("reference").train) == 1
    fails("./reference", "no splits", "reference")


def test_a_bare_name_may_be_a_folder_here(here):
    lay_out(here / "mine", valid={"a.json": MODELS[0]})
    assert find_dataset("mine").valid == MODELS[:1]


def test_installed_packages_have_their_own_folder(here, monkeypatch):
    package = here / "site" / "evolve"
    lay_out(package / "shipped" / "datasets" / "shipped-set", train={"a.json": MODELS[0]})
    (here / "site" / "datasets" / "stranger" / "train").mkdir(parents=True)
    monkeypatch.setattr("evolve.datasets.__file__", str(package / "datasets.py"))
    assert dataset_folders() == (package / "shipped" / "datasets",)
    assert [name for name, _ in available_datasets()] == ["shipped-set", *SUITES]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (
            "referense",
            ["dataset", "'referense'", "reference, suite, suite-shift", "Did you mean 'reference'?"],
        ),
        ("suit:7", ["Did you mean 'suite'?"]),
        ("reference:7", ["no such data set", "'reference:7'"]),
        ("no/such/folder", ["no such data set", "'no/such/folder'"]),
        ("none.json", ["none.json", "no such file"]),
        ("", ["no such data set", "''"]),
        ("a\0b", ["no such data set"]),
        ("x" * 5000, ["cannot be read", "too long"]),
        ("suite:x", ["suite", "seed", "whole number", "'x'", "suite:7"]),
        ("suite:", ["seed", "''"]),
        ("suite-shift:-1", ["suite-shift", "seed", "'-1'"]),
        ("suite:1.5", ["seed", "'1.5'"]),
        ("suite:" + "9" * 5000, ["seed", "99"]),
    ],
)
def test_what_is_not_found_is_explained(here, spec, said):
    fails(spec, *said)


# By path


def test_split_folders_are_read_in_order_of_file_names(here):
    lay_out(
        here / "mine",
        train={"b.json": MODELS[0], "a.json": MODELS[1], "c.json": MODELS[2]},
        valid={"x.json": MODELS[3]},
        test={"y.json": MODELS[4], "z.json": MODELS[5]},
    )
    dataset = find_dataset(here / "mine")
    assert dataset.train == (MODELS[1], MODELS[0], MODELS[2])
    assert (dataset.valid, dataset.test) == (MODELS[3:4], MODELS[4:])
    assert (dataset.name, dataset.source) == ("mine", str(here / "mine"))


@pytest.mark.parametrize("present", [["train"], ["valid"], ["test"], ["train", "test"], ["valid", "test"]])
@pytest.mark.parametrize("as_files", [False, True])
def test_some_of_the_splits_are_enough(here, present, as_files):
    for split, model in zip(present, MODELS, strict=False):
        if as_files:
            save_profile(model, here / f"{split}.json")
        else:
            lay_out(here, **{split: {"model.json": model}})
    dataset = find_dataset(str(here))
    assert [split for split in SPLITS if dataset.split(split)] == present
    assert [split for split, _ in dataset.splits()] == present


def test_one_file_serves_as_train_and_valid(here):
    save_profile(MODELS[0], here / "model.json")
    dataset = find_dataset("model.json")
    assert dataset.single_file
    assert (dataset.name, dataset.source) == ("model", "model.json")
    assert (dataset.train, dataset.valid, dataset.test) == (MODELS[:1], MODELS[:1], ())


def test_notes_and_hidden_files_are_left_alone(here):
    lay_out(here / "mine", train={"a.json": MODELS[0]})
    for path in (
        "README.md",
        ".DS_Store",
        "train/README.md",
        "train/notes.txt",
        "train/LICENSE",
        "train/.a.json",
    ):
        (here / "mine" / path).write_text("not a profile")
    (here / "mine" / "expected.json").write_text("{}")
    (here / "mine" / "figures").mkdir()
    assert find_dataset("mine").train == MODELS[:1]


def test_other_files_among_the_profiles_are_named(here):
    lay_out(here / "mine", train={"a.json": MODELS[0]})
    (here / "mine" / "train" / "weights.bin").touch()
    fails("mine", str(Path("train", "weights.bin")), "only .json files", "file weights.bin")


def test_folders_among_the_profiles_are_named(here):
    lay_out(here / "mine", train={"a.json": MODELS[0]})
    (here / "mine" / "train" / "more.json").mkdir()
    fails("mine", "more.json", "only .json files", "folder more.json")


def test_mixed_layouts_are_refused(here):
    lay_out(here, train={"a.json": MODELS[0]})
    save_profile(MODELS[1], here / "test.json")
    fails(str(here), str(here), "two layouts", "folder train and file test.json")


@pytest.mark.parametrize(("wrong", "right"), [("validation", "valid"), ("tset", "test"), ("tests", "test")])
@pytest.mark.parametrize("as_file", [False, True])
def test_misspelt_splits_are_not_left_out_in_silence(here, wrong, right, as_file):
    save_profile(MODELS[0], here / "train.json")
    if as_file:
        save_profile(MODELS[1], here / f"{wrong}.json")
    else:
        lay_out(here, **{wrong: {"a.json": MODELS[1]}})
    fails(str(here), "unknown split", f"'{wrong}'", f"Did you mean '{right}'?")


def test_folders_without_profiles_are_explained(here):
    fails(str(here), "no splits", "train.json")
    for split in SPLITS:
        (here / split).mkdir()
    fails(str(here), "no profile", str(here))


def test_a_file_that_is_no_profile_is_explained(here):
    (here / "model.toml").touch()
    fails("model.toml", "model.toml", "not a profile", ".json")


def test_faults_in_a_profile_name_its_file(here):
    lay_out(here / "mine", train={"a.json": MODELS[0], "b.json": MODELS[1]})
    path = here / "mine" / "train" / "b.json"
    data = json.loads(path.read_text())
    data["layers"][2]["num_params"] = 0
    path.write_text(json.dumps(data))
    fails("mine", str(Path("train", "b.json")), "layer 2", "num_params", "found 0")


@pytest.mark.parametrize("other", ["train", "valid", "test"])
def test_names_given_twice_are_located(here, other):
    files = {"train": {"a.json": MODELS[0], "b.json": MODELS[1]}}
    files.setdefault(other, {})["c.json"] = MODELS[0]
    lay_out(here / "mine", **files)
    fails(
        "mine", "name given twice", MODELS[0].name, str(Path("train", "a.json")), str(Path(other, "c.json"))
    )


def test_valid_may_be_the_same_as_train(here):
    save_profile(MODELS[0], here / "train.json")
    shutil.copy(here / "train.json", here / "valid.json")
    assert find_dataset(str(here)).single_file


def test_data_sets_made_in_code_are_checked_too():
    with pytest.raises(ProfileError, match="no profile"):
        Dataset("mine", (), (), ())
    with pytest.raises(ProfileError, match=r"name given twice.*in train and in test"):
        Dataset("mine", MODELS[:2], (), MODELS[1:2])
    with pytest.raises(ProfileError, match=r"one of train, valid, test, found 'dev'"):
        Dataset("mine", MODELS, (), ()).split("dev")


# Generated


@pytest.mark.parametrize("suite", SUITES)
def test_suites_have_three_splits_of_different_models(suite):
    dataset = find_dataset(suite)
    assert [len(dataset.split(split)) for split in SPLITS] == [64, 32, 64]
    assert len({profile.gradient_sensitivity.tobytes() for _, profile in dataset.splits()}) == 160
    assert dataset == find_dataset(suite)
    assert dataset.source == "generated"


def families_of(dataset, split):
    return {profile.name.rpartition("-")[0] for profile in dataset.split(split)}


def test_suite_has_all_families_in_every_split():
    dataset = find_dataset("suite")
    assert all(families_of(dataset, split) == set(FAMILIES) for split in SPLITS)


def test_suite_shift_tests_on_families_it_never_trained_on():
    dataset = find_dataset("suite-shift")
    assert families_of(dataset, "test") == set(UNSEEN_FAMILIES)
    assert (
        families_of(dataset, "train") == families_of(dataset, "valid") == set(FAMILIES) - set(UNSEEN_FAMILIES)
    )


def test_suites_follow_their_seed():
    assert find_dataset("suite:0").content_hash == find_dataset("suite").content_hash
    assert find_dataset("suite:7").content_hash != find_dataset("suite").content_hash
    assert find_dataset("suite:7").name == "suite:7"


def test_the_content_hash_ignores_what_a_data_set_is_called(here):
    one = Dataset("one", MODELS[:2], MODELS[2:3], MODELS[3:])
    assert one.content_hash == Dataset("two", MODELS[:2], MODELS[2:3], MODELS[3:], "there").content_hash
    assert one.content_hash != Dataset("one", MODELS[:3], (), MODELS[3:]).content_hash
    assert one.content_hash != Dataset("one", MODELS[1::-1], MODELS[2:3], MODELS[3:]).content_hash


# Writing


@given(
    st.lists(profiles(max_layers=3, max_formats=2), min_size=1, max_size=5, unique_by=lambda each: each.name),
    st.data(),
)
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read_back(tmp_path, made, data):
    splits = {split: [] for split in SPLITS}
    for profile in made:
        splits[data.draw(st.sampled_from(SPLITS))].append(profile)
    dataset = Dataset("any", *(tuple(splits[split]) for split in SPLITS))
    shutil.rmtree(tmp_path / "mine", ignore_errors=True)
    write_dataset(dataset, tmp_path / "mine")
    again = find_dataset(tmp_path / "mine")
    assert again.content_hash == dataset.content_hash
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_one_file_is_written_and_read_back_as_such(here):
    save_profile(MODELS[0], here / "model.json")
    dataset = find_dataset("model.json")
    write_dataset(dataset, here / "deep" / "mine")
    again = find_dataset(here / "deep" / "mine")
    assert again.single_file
    assert again.content_hash == dataset.content_hash


def test_nothing_is_written_over(here):
    lay_out(here / "mine", train={"a.json": MODELS[0]})
    with pytest.raises(ProfileError, match="exists already"):
        write_dataset(Dataset("any", MODELS, (), ()), here / "mine")
    (here / "empty").mkdir()
    write_dataset(Dataset("any", MODELS, (), ()), here / "empty")
    assert find_dataset("empty").train == MODELS


def test_a_failed_write_leaves_no_half_made_folder(here, monkeypatch):
    written = []

    def fill_up(profile, path):
        if written:
            raise ProfileError("cannot be written (No space left on device)", file=path)
        save_profile(profile, path)
        written.append(path)

    monkeypatch.setattr("evolve.datasets.save_profile", fill_up)
    with pytest.raises(ProfileError, match="No space left"):
        write_dataset(Dataset("any", MODELS, (), ()), here / "mine")
    assert written
    assert list(here.iterdir()) == []


def test_a_file_in_the_way_is_explained(here):
    (here / "file").touch()
    for target in ("file", "file/mine"):
        with pytest.raises(ProfileError, match=r"exists already|cannot be written"):
            write_dataset(Dataset("any", MODELS, (), ()), here / target)
