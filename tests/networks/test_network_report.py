"""The pages that `profile --report` and `check-network --report` write."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from test_network_verbs import MODEL, PROFILE, Shell, profile, shell  # noqa: F401

from evolve.profile_files import load_profile
from evolve.reports.network_report import profile_report

PICTURE = re.compile(r"!\[[^]]*\]\(([^)]*)\)")


def files(folder: str) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in Path(folder).iterdir()}


def page(folder: str) -> str:
    return (Path(folder) / "report.md").read_text(encoding="utf-8")


def test_a_check_has_a_page_with_every_measured_allocation(shell):  # noqa: F811
    words = (*MODEL, *PROFILE, "--search", 12)
    found = shell.check("bad.json", *words, "--report", "page")
    assert found["report"] == "page"
    text = page("page")
    assert set(PICTURE.findall(text)) == {"layers.svg", "predicted_measured.svg", "sensitivity.svg"}
    assert set(files("page")) == {"report.md", *PICTURE.findall(text)}
    assert f"Handed out: **{found['handed_out']}**" in text
    assert text.count("looked at by the search, calibration data |") == found["search"]["evaluations"]
    assert text.count("one format everywhere, held-out data |") == len(found["uniform_measured"])
    assert "refined, held-out data" in text
    # The sums are those of the profile, never what the search has learnt.
    predicted, measured = np.array(found["search"]["looked_at"]).T
    assert predicted[0] == pytest.approx(found["measured"][0]["predicted"])
    assert measured[0] == found["search"]["start"]
    assert measured.min() == found["search"]["divergence"]


def test_the_same_check_writes_the_same_bytes(shell):  # noqa: F811
    words = ("good.json", *MODEL, *PROFILE)
    shell.check(*words, "--report", "one")
    shell.check(*words, "--report", "two")
    assert files("one") == files("two")


def test_without_a_profile_the_statistics_are_measured(shell):  # noqa: F811
    found = shell.check("good.json", *MODEL, "--report", "page")
    text = page("page")
    assert "`--profile PROFILE.json`" in text
    assert set(PICTURE.findall(text)) == {"layers.svg"}
    assert "weight std" in text
    assert "activation range" in text
    assert found["measured"][0]["predicted"] is None


def test_a_folder_that_holds_something_is_refused_before_anything_is_measured(shell):  # noqa: F811
    Path("page").mkdir()
    (Path("page") / "mine.txt").write_text("mine")
    words = ("check-network", "good.json", *MODEL, *PROFILE, "--report", "page")
    status, _, err = shell(*words)
    assert status == 2
    assert "holds something already" in err
    assert not Path(".evolve_cache").exists()
    assert shell(*words, "--overwrite")[0] == 0
    assert (Path("page") / "mine.txt").read_text() == "mine"
    assert shell("check-network", "good.json", *MODEL, "--report", "no/where")[0] == 2
    assert shell("check-network", "good.json", *MODEL, "--report", "good.json")[0] == 2


def test_a_profile_has_a_page(shell):  # noqa: F811
    words = ("profile", "mine:pair", "--formats", "INT4_G32,INT8", "--hessian-probes", 0)
    status, out, err = shell(*words, "--output", "p.json", "--report", "page", "--json")
    assert status == 0, err
    assert json.loads(out)["report"] == "page"
    text = page("page")
    made = load_profile("p.json")
    assert files("page") == profile_report(made)
    for name, total in zip(made.format_names, made.loss.sum(axis=0), strict=True):
        shown = f"{total:.3g}".replace("-", "−")
        assert re.search(rf"\| `{name}` \| [0-9.]+ \| {re.escape(shown)} \|", text)
    assert str(Path.cwd()) not in text
    status, _, err = shell(*words, "--output", "q.json", "--report", "page")
    assert (status, Path("q.json").exists()) == (2, False)
