"""What a benchmark may be asked for: plans, and the command with its flags and files."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from evolve.benchmarking import Plan, Setting, cross, run_bench
from evolve.cli import main
from evolve.errors import InputError

BASE = {"datasets": "reference", "population": 8}
RIVALS = (Setting("genetic", {"strategy": "genetic"}), Setting("random", {"strategy": "random"}))


def test_settings_must_share_their_models(tmp_path: Path) -> None:
    one = Setting("one", {"datasets": "reference"})
    other = Setting("other", {"datasets": str(Path(__file__).parents[1] / "datasets/reference/train.json")})
    with pytest.raises(InputError, match="same models for all settings"):
        run_bench(Plan("models", (one, other), 1, 9, {"population": 8}), runs=tmp_path)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"seeds": 0}, "seeds: bad benchmark"),
        ({"evaluations": 1}, "evaluations: bad benchmark"),
        ({"settings": ()}, "settings: bad benchmark"),
        ({"settings": RIVALS[:1] * 2}, "none twice"),
        ({"name": "../up"}, "bad run name"),
    ],
)
def test_bad_plans(values: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        Plan(**{"name": "x", "settings": RIVALS, "seeds": 1, "evaluations": 9, "base": BASE, **values})


def test_every_combination_is_a_setting_named_by_what_differs() -> None:
    axes = {"strategy": ["genetic"], "signals": ["curves"]}
    assert [each.name for each in cross(axes)] == ["genetic"]
    rivals = {"strategy": ["genetic", "islands:2:random"], "operators": ["default", "x,y=0.5"]}
    crossed = cross({**axes, **rivals})
    assert [each.name for each in crossed] == [
        *("genetic-default", "genetic-x-y-0.5", "islands-2-random-default", "islands-2-random-x-y-0.5")
    ]
    assert crossed[1].overrides == {"strategy": "genetic", "signals": "curves", "operators": "x,y=0.5"}


class TestCommand:
    @pytest.fixture(autouse=True)
    def _folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    def call(self, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
        monkeypatch.setattr(sys, "argv", ["evolve", "bench", *words])
        with pytest.raises(SystemExit) as leaving:
            main()
        assert isinstance(leaving.value.code, int)
        return leaving.value.code

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--strategies", "genetic,magic"], "unknown strategy"),
            (["--signals", "metadata,magic"], "unknown level"),
            (["--datasets", "nowhere"], "no such data set"),
            (["--population", "1"], "population: bad configuration"),
            (["--evaluations", "1"], "--evaluations"),
            (["--seeds", "0"], "--seeds"),
            (["--workers", "0"], "--workers"),
            (["--name", "a/b"], "bad run name"),
            (["--strategies", ","], "settings: bad benchmark"),
            (["--operators", "default", "--operators", "default,magic"], "unknown operator"),
            (["--start-from", "baseline", "--start-from", "magic"], "unknown heuristic"),
            (["--config", "none.toml"], "cannot be read"),
        ],
    )
    def test_bad_input_ends_in_one_message(
        self,
        words: list[str],
        message: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        assert self.call(monkeypatch, *words) == 2
        assert message in capsys.readouterr().err
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        ("text", "words", "message"),
        [
            ("seed = 3", [], "seed: not for a benchmark"),
            ("settings = 3", [], "expected tables"),
            ("[settings]\na = 3", [], "expected tables"),
            ("[settings.a]\ngenerations = 3", [], "a, generations: not for a benchmark"),
            ("[settings.a]\nmagic = 3", [], "unknown key"),
            ("[settings.a]\npopulation = 9", ["--strategies", "random"], "settings given twice"),
            ("[settings.a]\npopulation = 9", ["--operators", "default"], "settings given twice"),
            ("[settings.a]\noperators = 'structure=x'", [], "bad weight"),
        ],
    )
    def test_bad_files(
        self,
        text: str,
        words: list[str],
        message: str,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        Path("bench.toml").write_text(text)
        assert self.call(monkeypatch, "--config", "bench.toml", *words) == 2
        assert message in capsys.readouterr().err
        assert [each.name for each in Path().iterdir()] == ["bench.toml"]

    def test_settings_of_a_file_in_json(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Path("bench.toml").write_text(
            "population = 8\n[settings.all]\n[settings.numbers]\noperators = 'parameters'\n"
        )
        words = ["--config", "bench.toml", "--seeds", "1", "--evaluations", "12", "--no-figures", "--json"]
        assert self.call(monkeypatch, *words) == 0
        first = capsys.readouterr()
        data = json.loads(first.out)
        assert [each["name"] for each in data["settings"]] == ["all", "numbers"]
        assert data["configurations"]["numbers"]["operators"] == {"parameters": 2.0}
        assert len(data["timing"]) == 2
        assert Path(data["report"]).is_file()
        assert "run 2/2" in first.err
        assert self.call(monkeypatch, *words) == 0  # finds its own runs again, without a name
        assert json.loads(capsys.readouterr().out) == data

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("population = 8", ["--objective", "budgets:2.5,4", "--strategies", "genetic,random"]),
            (
                "population = 8\nplateau = 9\nstart_from = ['uniform_int8']",
                ["--strategies", "genetic,random"],
            ),
            ("operators = {structure = 2.0}\n[settings.a]\n[settings.'b.c']\nstrategy = 'random'", []),
        ],
    )
    def test_the_printed_command_makes_the_same_runs(
        self, text: str, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        Path("mine.toml").write_text(text)
        usual = ["--seeds", "1", "--evaluations", "20", "--no-figures", "--json", "--name", "one"]
        assert self.call(monkeypatch, "--config", "mine.toml", *words, *usual) == 0
        first = json.loads(capsys.readouterr().out)
        Path("mine.toml").unlink()
        command = shlex.split(first["command"])
        assert command[:4] == ["python", "-m", "evolve", "bench"]
        assert command[-2:] == ["--name", "one"]
        assert self.call(monkeypatch, *command[4:-1], "two", "--no-figures", "--json") == 0
        second = json.loads(capsys.readouterr().out)
        assert first["configurations"] == second["configurations"]
        assert first["runs"] == second["runs"]
        page = Path(first["report"]).read_text()
        assert ("[bench.toml](bench.toml)" in page) == ("--config" in command)

    def test_a_page_of_few_seeds_or_of_data_elsewhere_says_so(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        data = str(Path(__file__).parents[1] / "datasets" / "reference")
        for count, few in (("5", True), ("6", False)):
            words = ["--seeds", count, "--evaluations", "9", "--datasets", data, "--population", "8"]
            assert self.call(monkeypatch, *words, "--no-figures", "--json", "--name", f"of-{count}") == 0
            found = json.loads(capsys.readouterr().out)
            page = Path(found["report"]).read_text()
            assert ("fewer than six seeds" in page) == few
            assert data not in page
            assert f"`{found['dataset_hash']}`; give its path instead of `reference`" in page
