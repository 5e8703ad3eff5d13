"""Number formats and their registry."""

from __future__ import annotations

import math

import pytest

from evolve import formats
from evolve.errors import FormatError
from evolve.formats import PrecisionFormat, get_format, get_formats, known_formats, register_format


@pytest.fixture
def registry(monkeypatch):
    """A copy of the registry, so that a test's formats are forgotten."""
    monkeypatch.setattr(formats, "_REGISTRY", dict(formats._REGISTRY))


def test_published_formats_are_known():
    published = get_formats(("INT2", "INT4", "INT8", "FP16", "FP32"))
    assert [each.bits for each in published] == [2, 4, 8, 16, 32]
    assert [each.kind for each in published] == ["integer"] * 3 + ["float"] * 2


def test_names_are_looked_up_in_the_order_given():
    assert [each.name for each in get_formats(["FP32", "INT2"])] == ["FP32", "INT2"]


def test_known_formats_are_ordered_by_bits_then_name():
    known = known_formats()
    assert list(known) == sorted(known, key=lambda each: (each.bits, each.name))
    assert len({each.name for each in known}) == len(known)


def test_unknown_format_lists_the_known_ones():
    with pytest.raises(FormatError) as caught:
        get_format("INT7")
    assert "'INT7'" in str(caught.value)
    assert all(each.name in str(caught.value) for each in known_formats())


@pytest.mark.usefixtures("registry")
def test_registered_format_is_found():
    grouped = register_format(PrecisionFormat("INT4_GROUP32", 4.5, "integer"))
    assert get_format("INT4_GROUP32") is grouped
    assert grouped in known_formats()


@pytest.mark.usefixtures("registry")
def test_registering_the_same_format_again_changes_nothing():
    before = known_formats()
    assert register_format(PrecisionFormat("INT4", 4.0, "integer")) == get_format("INT4")
    assert known_formats() == before


@pytest.mark.usefixtures("registry")
def test_a_taken_name_is_refused():
    with pytest.raises(FormatError, match=r"INT4.*taken"):
        register_format(PrecisionFormat("INT4", 4.5, "integer"))
    assert get_format("INT4").bits == 4


@pytest.mark.parametrize(
    ("name", "bits", "kind", "field"),
    [
        ("", 4, "integer", "name"),
        ("INT 4", 4, "integer", "name"),
        ("INT4;", 4, "integer", "name"),
        ("X", 0, "integer", "bits"),
        ("X", -1, "integer", "bits"),
        ("X", math.nan, "integer", "bits"),
        ("X", math.inf, "integer", "bits"),
        ("X", True, "integer", "bits"),
        ("X", "4", "integer", "bits"),
        ("X", 4, "int", "kind"),
    ],
)
def test_bad_formats_name_the_field(name, bits, kind, field):
    with pytest.raises(FormatError) as caught:
        PrecisionFormat(name, bits, kind)
    assert caught.value.field == field
    assert "expected" in str(caught.value)


def test_formats_of_fixed_blocks_count_their_scales():
    blocks = get_formats(("NF4", "MXFP4", "NVFP4"))
    assert [each.bits for each in blocks] == [4 + 16 / 64, 4 + 8 / 32, 4 + 8 / 16]
    assert [each.kind for each in blocks] == ["codebook", "float", "float"]
