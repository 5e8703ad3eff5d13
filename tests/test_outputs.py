"""Files that are to be written: which are refused."""

from __future__ import annotations

import pytest

from evolve.errors import BudgetError, InputError
from evolve.outputs import check_output


def test_files_that_are_there_or_read(tmp_path):
    file = tmp_path / "one.json"
    check_output(file, (".json",), inputs=[file])
    file.touch()
    with pytest.raises(BudgetError, match=r"exists already.*--overwrite"):
        check_output(file, (".json",), error=BudgetError)
    check_output(file, (".json",), True, inputs=[tmp_path / "two.json"])
    with pytest.raises(InputError, match="would be lost"):
        check_output(file, (".json",), True, inputs=[tmp_path / "two.json", tmp_path / "." / "one.json"])


@pytest.mark.parametrize("name", ["one", "one.txt", "json", ".json", "one.json.bak"])
def test_other_endings_are_refused(name, tmp_path):
    with pytest.raises(InputError, match=r"ends in \.json or \.csv"):
        check_output(tmp_path / name, (".json", ".csv"))


def test_a_folder_that_cannot_be_looked_into_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"--output: cannot be written \(File name too long\)"):
        check_output(tmp_path / ("x" * 300) / "one.json", (".json",))
