"""Files that are to be written: which are refused, and that the longest name allowed can be written."""

from __future__ import annotations

import pytest

from evolve.allocations import allocation_of, save_allocation
from evolve.datasets import find_dataset
from evolve.errors import BudgetError, InputError, ProfileError
from evolve.outputs import LONGEST_NAME, check_output
from evolve.profile_files import save_profile

PROFILE = find_dataset("hawqv3").train[0]
ALLOCATION = allocation_of(PROFILE, [0] * PROFILE.num_layers)


@pytest.mark.parametrize(
    "save", [lambda path: save_profile(PROFILE, path), lambda path: save_allocation(ALLOCATION, path)]
)
def test_the_longest_name_can_be_written_and_a_longer_one_is_refused(save, tmp_path):
    longest = tmp_path / ("ä" * ((LONGEST_NAME - 5) // 2) + "x.json")
    check_output(longest, (".json",))
    save(longest)
    assert [each.name for each in tmp_path.iterdir()] == [longest.name]
    longer = tmp_path / f"x{longest.name}"
    with pytest.raises(InputError, match=rf"too long.*{LONGEST_NAME} bytes, found {LONGEST_NAME + 1}"):
        check_output(longer, (".json",))
    with pytest.raises(ProfileError, match="cannot be written"):
        save(tmp_path / f"{'x' * 300}.json")


def test_files_that_are_there_or_read(tmp_path):
    file = tmp_path / "one.json"
    check_output(file, (".json",), inputs=[file])
    file.touch()
    with pytest.raises(BudgetError, match=r"exists already.*--overwrite"):
        check_output(file, (".json",), error=BudgetError)
    check_output(file, (".json",), True, inputs=[tmp_path / "two.json", tmp_path / ("x" * 300)])
    with pytest.raises(InputError, match="would be lost"):
        check_output(file, (".json",), True, inputs=[tmp_path / "two.json", tmp_path / "." / "one.json"])


@pytest.mark.parametrize("name", ["one", "one.txt", "json", ".json", "one.json.bak"])
def test_other_endings_are_refused(name, tmp_path):
    with pytest.raises(InputError, match=r"ends in \.json or \.csv"):
        check_output(tmp_path / name, (".json", ".csv"))


def test_a_folder_that_cannot_be_looked_into_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"--output: cannot be written \(File name too long\)"):
        check_output(tmp_path / ("x" * 300) / "one.json", (".json",))
