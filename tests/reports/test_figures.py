from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from types import SimpleNamespace

import matplotlib
import numpy as np
import pytest

from evolve.reports import precision_map
from evolve.reports.allocations import MOST_DRAWN, mean_frontier
from evolve.reports.contents import Dot
from evolve.reports.drawing import STYLE, svg
from evolve.reports.figures import draw
from evolve.reports.markdown import percent
from evolve.reports.precision_map import precision_maps
from evolve.reports.report import COMPRESSION_FIGURE, FITNESS_FIGURE, MAP_FIGURE
from evolve.reports.search_figure import search_figure

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def pictures(run):
    return draw(run.contents, run.setup.dataset)


def test_every_picture_is_svg_on_white(pictures):
    assert set(pictures) == {MAP_FIGURE, FITNESS_FIGURE, COMPRESSION_FIGURE}
    for content in pictures.values():
        root = ElementTree.fromstring(content)
        assert root.tag == f"{SVG}svg"
        background = next(root.iter(f"{SVG}path"))
        assert "fill: #ffffff" in background.attrib["style"]


def test_the_same_contents_give_the_same_bytes(run, pictures):
    assert draw(run.contents, run.setup.dataset) == pictures


def test_no_date_and_no_version_in_a_picture(pictures):
    for content in pictures.values():
        assert b"<dc:date>" not in content
        assert matplotlib.__version__.encode() not in content


def test_pictures_are_small(pictures):
    assert all(len(content) < 300_000 for content in pictures.values())


def test_settings_are_left_as_they_were(run):
    before = dict(matplotlib.rcParams)
    draw(run.contents, run.setup.dataset)
    assert dict(matplotlib.rcParams) == before


def test_without_a_champion_only_the_search_is_drawn(hopeless):
    assert set(draw(hopeless.contents, hopeless.setup.dataset)) == {FITNESS_FIGURE}


def test_any_name_can_be_drawn(single):
    assert set(draw(single.contents, single.setup.dataset)) == {
        MAP_FIGURE,
        FITNESS_FIGURE,
        COMPRESSION_FIGURE,
    }


def test_several_models_are_drawn_up_to_a_limit(suite):
    assert len(suite.contents.maps) == MOST_DRAWN
    assert suite.contents.undrawn == 2
    assert MAP_FIGURE in draw(suite.contents, suite.setup.dataset)


def test_a_map_has_one_shape_a_format(run):
    for model in run.contents.maps:
        rows = {
            name: float(place) for place, name in enumerate(("champion", "optimum", *set(model.layer_types)))
        }
        boxes = precision_map._boxes(model, rows)
        assert set(boxes) == {share.format for share in model.shares}
        # Each layer is in the champion's row, in the optimum's and in its type's.
        assert sum(map(len, boxes.values())) == 3 * len(model.layer_types)


def test_neighbours_join_where_layers_are_many(run, monkeypatch):
    monkeypatch.setattr(precision_map, "_MOST_SEPARATE", 10)
    whole = np.ones(50, dtype=bool)
    ((left, right, *_),) = precision_map._row_of_boxes(whole, 1.0, 0.2)
    assert (left, right) == (precision_map._LEFT, precision_map._RIGHT)
    whole[20] = False
    assert len(precision_map._row_of_boxes(whole, 1.0, 0.2)) == 2


def test_formats_have_colours_that_darken_with_their_bits(run):
    colours = precision_map._format_colours(run.contents.maps)
    bits = dict(zip(run.contents.maps[0].formats, run.contents.maps[0].bits, strict=True))
    assert sorted(colours, key=lambda name: bits[name]) == list(colours)
    lightness = [sum(int(colour[at : at + 2], 16) for at in (1, 3, 5)) for colour in colours.values()]
    assert lightness == sorted(lightness, reverse=True)


def test_a_rule_that_fails_on_a_model_is_drawn_as_failing(run):
    failing = [replace(model, champion=None) for model in run.contents.maps]
    assert failing[0].agreement is None
    with matplotlib.rc_context(STYLE):
        assert svg(precision_maps(failing)) != svg(precision_maps(run.contents.maps))


def test_very_many_dots_become_pixels(run):
    dots = tuple(Dot(each % 3, each % 7 / 2, each % 7 / 7) for each in range(5000))
    content = draw(replace(run.contents, dots=dots), run.setup.dataset)[FITNESS_FIGURE]
    assert b"data:image/png" in content
    assert len(content) < 300_000


def test_a_long_search_is_summed_up(run):
    rows = tuple(replace(run.contents.generations[0], generation=each) for each in range(300))
    dots = tuple(Dot(each // 50, each % 7, each % 50 / 60 + each / 1e5) for each in range(15_000))
    content = draw(replace(run.contents, dots=dots, generations=rows), run.setup.dataset)[FITNESS_FIGURE]
    assert b"data:image/png" not in content
    assert len(content) < 100_000


@pytest.mark.parametrize(
    ("best", "highest", "labels"),
    [
        (0.9962, 3.0, ["0 %", "90 %", "99 %", "99.9 %"]),
        (0.6, 1.0, ["0 %", "50 %", "80 %", "90 %"]),
        (1.0, 2.5, ["optimum", "0 %", "90 %", "99 %"]),
    ],
)
def test_the_scale_of_shares_leaves_room_for_the_best(best, highest, labels):
    shares = np.array([0.0, 0.3, min(best, 0.98)] if best == 1 else [0.0, 0.3, best])
    dots = [Dot(place, 1.0, float(each)) for place, each in enumerate([*shares, best])]
    contents = SimpleNamespace(dots=dots, generations=range(30), tables=())
    with matplotlib.rc_context(STYLE):
        (axes,) = search_figure(contents).axes
    ticks = dict(zip([each.get_text() for each in axes.get_yticklabels()], axes.get_yticks(), strict=True))
    assert {*labels} <= {*ticks}
    assert max(ticks.values()) <= highest
    assert axes.get_ylim()[1] == pytest.approx(1.06 * highest)
    assert "optimum" not in ticks or ticks["optimum"] == highest
    texts = [each.get_text() for each in axes.texts]
    assert texts == [percent(best, 3)]


def test_frontier_of_one_model_is_exact_and_of_several_their_mean(run, suite):
    retention, ratio = mean_frontier(run.setup.dataset, "test")
    assert np.all(np.diff(retention) >= 0)
    assert np.all(np.diff(ratio) <= 0)
    assert ratio[0] == pytest.approx(16)
    mean_retention, mean_ratio = mean_frontier(suite.setup.dataset, "train")
    assert mean_retention.shape == mean_ratio.shape
    assert np.all(np.diff(mean_ratio) <= 1e-12)


def test_the_champion_is_on_or_below_the_frontier(run):
    for table in run.contents.tables:
        retention, ratio = mean_frontier(run.setup.dataset, table.split)
        for row in table.rows:
            # Between two vertices of the hull lies nothing better than the next vertex's retention allows.
            reachable = ratio[max(0, np.searchsorted(retention, row.accuracy_retention, side="right") - 1)]
            assert row.compression_ratio <= reachable * 1.2


def test_shares_of_the_weights_add_up(run):
    for model in run.contents.maps:
        assert sum(share.weights for share in model.shares) == pytest.approx(1)
        assert sum(share.optimum_weights for share in model.shares) == pytest.approx(1)
        assert sum(share.layers for share in model.shares) == len(model.layer_types)


def test_text_is_drawn_as_shapes(pictures):
    # So that it looks the same wherever the picture is seen.
    assert not re.search(rb"<text\b", pictures[MAP_FIGURE])
