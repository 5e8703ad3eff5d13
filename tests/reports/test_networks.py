"""The page of a run on measured networks: what joint measurements say of the sums that scores are made of."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from small_runs import ROOT, make_run

from evolve.datasets import find_dataset
from evolve.joint import joint_of
from evolve.reports.box_plots import boxes_picture, draw_boxes
from evolve.reports.drawing import WIDTH
from evolve.reports.layer_picture import draw_layers, layer_picture
from evolve.reports.network_facts import (
    FormatMap,
    SumGroup,
    SumPanel,
    common_prefix,
    counted_weights,
    layers_of,
    ratio_of,
    ratio_words,
)
from evolve.reports.networks import BOXES_FIGURE, SUMS_FIGURE, draw_networks
from evolve.reports.sum_plots import draw_sums, sums_picture
from evolve.reports.verification import verify

MEASURED = ROOT / "datasets" / "measured"
CHOSEN = {
    "train": ("mlp-wine-32x32-s0", "mlp-digits-48x48-s0"),
    "valid": ("resnet-digits-16x16x32-s0",),
    "test": ("cnn-layernorm-digits-16x32x32-s0",),
}


def copied(folder, joint=True):
    """Copy a few of the measured networks into a data set of their own."""
    for split, names in CHOSEN.items():
        (folder / split).mkdir(parents=True)
        for name in names:
            shutil.copy(MEASURED / split / f"{name}.json.gz", folder / split)
            if joint:
                (folder / "joint").mkdir(exist_ok=True)
                shutil.copy(MEASURED / "joint" / f"{name}.json.gz", folder / "joint")
    return str(folder)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    folder = tmp_path_factory.mktemp("real")
    return make_run(folder, "real", True, datasets=copied(folder / "few"), generations=2)


@pytest.fixture(scope="module")
def within_budgets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("budgets")
    data = copied(folder / "few", joint=False)
    return make_run(folder, "budgets", datasets=data, generations=1, objective="budgets:3,4.5")


def test_synthetic_models_have_no_such_page(run):
    assert run.contents.networks is None
    assert not (run.folder / "networks.md").exists()
    assert "networks.md" not in run.text()
    assert draw_networks(None) == {}


def test_the_report_links_the_page_and_the_page_its_pictures(real):
    assert "[networks.md](networks.md)" in real.text()
    pictures = re.findall(r"!\[[^]]*\]\(([^)]*)\)", real.text("networks.md"))
    assert {SUMS_FIGURE, BOXES_FIGURE, "figures/layers_train.svg"} < set(pictures)
    assert all((real.folder / each).is_file() for each in pictures)


def test_sums_of_the_champion_are_those_of_the_profiles(real):
    found = json.loads(real.text("report.json"))["networks"]
    dataset = find_dataset(ROOT / "datasets" / "measured")
    profiles = {profile.name: profile for _, profile in dataset.splits()}
    assert [each["network"] for each in found] == [
        name for names in CHOSEN.values() for name in sorted(names)
    ]
    table = {table.split: table.champion for table in real.contents.tables}
    for each in found:
        loss = profiles[each["network"]].loss
        assert loss.min(axis=1).sum() <= each["predicted"] <= loss.max(axis=1).sum()
    (valid,) = [each for each in found if each["split"] == "valid"]
    assert np.exp(-valid["predicted"]) == pytest.approx(table["valid"].accuracy_retention)
    assert valid["avg_bits"] == pytest.approx(table["valid"].avg_bits)


def test_the_ratio_beside_a_sum_is_that_of_allocations_like_it(real):
    joint = joint_of(find_dataset(ROOT / "datasets" / "measured"))
    profiles = {profile.name: profile for _, profile in find_dataset(MEASURED).splits()}
    for each in real.contents.networks.champion:
        measured = joint[each.network]
        predicted = measured.predicted(profiles[each.network])
        near = (predicted >= each.predicted / 2) & (predicted < 2 * each.predicted)
        if near.sum() < 8:
            assert each.nearby is None
        else:
            ratios = measured.calibration_divergence[near] / predicted[near]
            assert each.nearby.median == pytest.approx(np.median(ratios))
            assert each.nearby.count == near.sum()


def test_each_budget_has_a_sum_of_its_own(within_budgets):
    page = within_budgets.text("networks.md")
    assert "no joint measurements lie beside these profiles" in page
    assert "| within |" in page
    sums = within_budgets.contents.networks.champion
    assert {each.within for each in sums} <= {"3 bits", "4.5 bits"}
    for each in sums:
        assert each.avg_bits <= float(each.within.split()[0]) + 1e-9


def test_verify_covers_the_page(real):
    assert verify(real.store, real.setup, real.reports) == ()
    page = real.folder / "networks.md"
    text = page.read_text(encoding="utf-8")
    page.write_text(text.replace("The real networks", "The networks"), encoding="utf-8")
    (difference,) = verify(real.store, real.setup, real.reports)
    assert "networks.md, line 1" in difference
    page.write_text(text, encoding="utf-8")


def test_pictures_are_the_same_bytes_again(real):
    networks = real.contents.networks
    assert draw_networks(networks) == draw_networks(networks)


def test_damaged_joint_measurements_are_told_without_a_path(tmp_path):
    data = copied(tmp_path / "few")
    (tmp_path / "few" / "joint" / "mlp-wine-32x32-s0.json.gz").write_text("{}")
    made = make_run(tmp_path, "damaged", datasets=data, generations=1)
    page = made.text("networks.md")
    assert "cannot be used (missing field)" in page
    assert str(tmp_path) not in page


def deep(times):
    """A network as deep as wanted, its paths long and alike."""
    layers = layers_of(find_dataset(MEASURED).test[-1])
    names = [f"model.decoder.stack.{at}.{name}" for at in range(times) for name in layers.names]
    return replace(
        layers,
        names=tuple(names),
        kinds=layers.kinds * times,
        num_params=np.tile(layers.num_params, times),
        statistics={name: np.tile(each, times) for name, each in layers.statistics.items()},
        divergence=np.tile(layers.divergence, (times, 1)),
    )


def boxes_of(figure):
    """Return the boxes of all texts in a picture, in pixels, of those that say something."""
    renderer = figure.canvas.get_renderer() if hasattr(figure.canvas, "get_renderer") else None
    figure.draw_without_rendering()
    texts = [each for each in figure.findobj(lambda each: hasattr(each, "get_text")) if each.get_text()]
    return [(each.get_text(), each.get_window_extent(renderer)) for each in texts if each.get_visible()]


@pytest.mark.parametrize("times", [1, 4, 12])
def test_names_of_layers_do_not_overlap_whatever_the_depth(times):
    layers = deep(times)
    maps = [FormatMap("allocation", dict.fromkeys(layers.names, "INT4"))]
    figure = layer_picture(layers, maps)
    assert figure.get_size_inches()[0] == WIDTH
    assert figure.get_size_inches()[1] < 33
    names = [box for text, box in boxes_of(figure) if "blocks." in text]
    assert len(names) > 10
    tops = sorted((box.y0, box.y1) for box in names)
    assert all(low[1] <= high[0] + 2 for low, high in pairwise(tops))
    assert min(box.x0 for box in names) >= 0


def test_what_all_paths_begin_with_is_said_once():
    assert common_prefix(deep(2).names) == "model.decoder.stack."
    assert common_prefix(("encoder.0", "head")) == ""
    assert common_prefix(("a.weight",)) == ""


@pytest.mark.parametrize(
    ("count", "text"), [(7, "7"), (768, "768"), (999, "999"), (3072, "3.1k"), (38_597_376, "39M")]
)
def test_weights_are_counted_in_few_characters(count, text):
    assert counted_weights(count) == text


def test_layers_are_drawn_without_divergences_and_statistics():
    layers = replace(deep(1), divergence=None, statistics={}, formats=("INT4", "FP16"))
    picture = draw_layers(layers, [FormatMap("allocation", dict.fromkeys(layers.names, "INT4"))])
    assert picture.startswith(b"<?xml")
    assert boxes_picture([layers]) is None
    assert draw_boxes([layers]) is None


def test_a_panel_a_type_and_no_box_of_few_layers():
    figure = boxes_picture([layers_of(find_dataset(MEASURED).train[9])])
    titles = [text for text, _ in boxes_of(figure) if "layer" in text and "," in text]
    assert {"Linear, 3 layers", "Classifier, 1 layer"} <= set(titles)
    assert not figure.axes[0].patches


def test_sums_are_drawn_with_what_is_0():
    groups = (SumGroup("none", np.zeros(2), np.zeros(2)), SumGroup("some", np.ones(1), np.ones(1)))
    assert draw_sums([SumPanel("a $name$", groups, (0.1,), (0.0, 0.5))]).startswith(b"<?xml")
    figure = sums_picture([SumPanel("nothing", groups[:1], (0.1,))])
    assert len(figure.axes) == 1


def test_a_ratio_needs_enough_allocations():
    group = SumGroup("", np.full(10, 0.5), np.linspace(0.5, 1.4, 10))
    assert ratio_words(ratio_of(group, 0.1, 1)) == "1.90 (1.18 to 2.62)"
    assert ratio_words(ratio_of(group, 0.6, 1)) == "–"
