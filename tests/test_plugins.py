"""Plugins: what is found where, and what is said about those that are broken."""

from __future__ import annotations

import shutil
import textwrap

import pytest

from evolve import plugins
from evolve.errors import PluginError, TemplateError
from evolve.parameters import linear
from evolve.plugin_files import general_templates, load_plugin, plugin_name
from evolve.plugins import find_heuristics, heuristic_folders, load_catalogue

GOOD = '''\
"""A module."""

from evolve.heuristics import heuristic, linear


@heuristic(role="baseline", source="Nowhere", parameters=[linear("edge", 0.1, 0.0, 0.5)])
def allocate(model, p):
    """The ends are FP32.

    And more.
    """
    return model.where(model.edge_distance < p.edge, "FP32", "FP16")
'''
CODE = """\
{#
role = "published"
source = "Somewhere"
summary = "The ends are FP32."

[slots.ends]
type = "mask"
default = 'model.edge_distance < p.x'

[slots.narrow]
type = "format"
default = "FP16"

[parameters.x]
default = 0.1

[parameters.depth]
default = 20
low = 5
high = 1000
scale = "log"
#}
def allocate(model, p):
    ends = {{ ends }}
    return model.where(ends | (model.depth < p.depth), "FP32", "{{ narrow }}")
"""
INSTANCE = """\
{#
summary = "A ladder."
template = "ladder"

[slots]
clauses = [
  ['model.edge_distance < p.edge', "FP32"],
  ["model.sensitivity(\\"FP16\\") > p.t", "FP32"],
]
otherwise = "FP16"

[parameters]
edge = 0.1
t = 0.001
#}
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder of plugins in an otherwise empty working directory."""
    monkeypatch.chdir(tmp_path)
    made = tmp_path / "heuristics"
    made.mkdir()
    return made


def write(folder, name, text):
    file = folder / name
    file.write_text(textwrap.dedent(text), encoding="utf-8")
    return file


def test_a_python_function_says_all_of_itself(folder):
    found = load_plugin(write(folder, "mine.py", GOOD))
    assert (found.name, found.role, found.source) == ("mine", "baseline", "Nowhere")
    assert found.summary == "The ends are FP32."
    assert found.candidate.to_json() == {"template": "mine", "slots": {}, "parameters": {"edge": 0.1}}
    assert found.template.parameters_of(found.candidate) == (linear("edge", 0.1, 0.0, 0.5),)
    assert found.template.source(found.candidate) == GOOD


def test_a_code_template_brings_slots_and_parameters(folder):
    found = load_plugin(write(folder, "mine.py.j2", CODE))
    assert (found.name, found.role, found.source) == ("mine", "published", "Somewhere")
    assert found.summary == "The ends are FP32."
    assert found.candidate.slots == (
        ("ends", "model.edge_distance < p.edge_distance"),
        ("narrow", "FP16"),
    )
    assert found.candidate.parameters == (("depth", 20.0), ("edge_distance", 0.1))
    assert found.template.source(found.candidate) == textwrap.dedent(
        """\
        def allocate(model, p):
            ends = model.edge_distance < p.edge_distance
            return model.where(ends | (model.depth < p.depth), "FP32", "FP16")
        """
    )


def test_an_instance_of_a_general_template_fills_its_slots(folder):
    found = load_plugin(write(folder, "mine.py.j2", INSTANCE))
    assert found.role == "user"
    assert found.template is general_templates()["ladder"]
    assert found.candidate.slots == (
        (
            "clauses",
            (
                ("model.edge_distance < p.edge_distance", "FP32"),
                ('model.sensitivity("FP16") > p.sensitivity_fp16', "FP32"),
            ),
        ),
        ("otherwise", "FP16"),
    )
    assert found.candidate.parameters == (("edge_distance", 0.1), ("sensitivity_fp16", 0.001))


def changed(text, before, after):
    assert text.count(before) == 1
    return text.replace(before, after)


# file name: (text, line, what is said)
BROKEN = {
    "syntax_error.py": (changed(GOOD, "(model, p):", "(model, p)"), 7, "not Python: expected ':'"),
    "raises_at_import.py": ("import math\n\nmath.sqrt(-1)\n", 3, "fails when loaded: ValueError"),
    "exits_at_import.py": ("import sys\nsys.exit()\n", 2, "fails when loaded: SystemExit"),
    "missing_module.py": ("import no_such_module\n", 1, "No module named 'no_such_module'"),
    "undeclared.py": (
        "\n\ndef allocate(model, p):\n    return model.select(otherwise='FP16')\n",
        3,
        "allocate is not declared; expected @heuristic",
    ),
    "wrong_role.py": (changed(GOOD, '"baseline"', '"basline"'), 6, "expected one of baseline, published"),
    "wrong_bounds.py": (changed(GOOD, "0.0, 0.5", "0.5, 0.0"), 6, "expected more than low = 0.5, found 0.0"),
    "outside_bounds.py": (changed(GOOD, "0.1, 0.0", "0.9, 0.0"), 6, "expected a number within [0.0, 0.5]"),
    "no_parameter.py": (
        changed(GOOD, 'linear("edge", 0.1, 0.0, 0.5)', "0.1"),
        6,
        "expected linear(...) or log",
    ),
    "twice.py": (
        changed(GOOD, "parameters=[", 'parameters=[linear("edge", 0.1, 0.0, 0.5), '),
        6,
        "two parameters have one name",
    ),
    "no_header.py.j2": ("def allocate(model, p): ...\n", 1, "has no header; expected {# TOML #} at the top"),
    "unfinished_header.py.j2": ('{#\nrole = "user"\n', 1, "has no header"),
    "bad_toml.py.j2": (changed(CODE, 'role = "published"', "role = published"), 2, "the header is not TOML"),
    "unfinished_toml.py.j2": ('{#\nrole = "user"\nsource = [\n  3,\n#}\n', 4, "the header is not TOML"),
    "unknown_key.py.j2": (changed(CODE, "summary =", "sumary ="), 4, "unknown key; expected one of role"),
    "unknown_slot_key.py.j2": (changed(CODE, 'type = "mask"', 'kind = "mask"'), 7, "slots.ends: unknown key"),
    "wrong_role_2.py.j2": (changed(CODE, '"published"', '"famous"'), 2, "found 'famous'"),
    "no_text.py.j2": (changed(CODE, '"Somewhere"', "3"), 3, "source: bad header; expected a text, found 3"),
    "slots_no_table.py.j2": ('{#\nrole = "user"\nslots = 3\n#}\nx', 3, "expected a table [slots]"),
    "slot_no_table.py.j2": ('{#\n[slots]\nends = "mask"\n#}\nx', 3, "expected a table, found 'mask'"),
    "unknown_slot_type.py.j2": (
        changed(CODE, '"mask"', '"masc"'),
        7,
        "unknown slot type; expected one of mask",
    ),
    "slot_of_no_type.py.j2": (changed(CODE, 'type = "mask"\n', ""), 6, "bad slot; expected type and default"),
    "bad_slot_name.py.j2": (
        changed(changed(CODE, "[slots.ends]", '[slots."the ends"]'), "{{ ends }}", "1"),
        6,
        "expected a Python identifier, found 'the ends'",
    ),
    "bad_expression.py.j2": (
        changed(CODE, "model.edge_distance", "model.edge"),
        8,
        "models have no signal edge",
    ),
    "wrong_type.py.j2": (changed(CODE, " < p.x'", "'"), 8, "this expression is a score; expected a mask"),
    "number_for_slot.py.j2": (
        changed(CODE, "'model.edge_distance < p.x'", "3"),
        6,
        "expected the text of a mask",
    ),
    "bad_format.py.j2": (changed(CODE, '"FP16"', '"FP 16"'), 12, "expected a format name"),
    "number_without_value.py.j2": (
        changed(CODE, "[parameters.x]\ndefault = 0.1\n", ""),
        8,
        "Add it under [parameters.x]",
    ),
    "number_that_is_text.py.j2": (changed(CODE, "= 0.1", '= "0.1"'), 15, "parameters.x: bad parameter"),
    "number_out_of_bounds.py.j2": (
        changed(CODE, "= 0.1", "= 0.7"),
        14,
        "parameters.x: out of bounds; expected a number within [0, 0.5], found 0.7",
    ),
    "number_nobody_reads.py.j2": (
        changed(CODE, "[parameters.x]", "[parameters.y]\ndefault = 1\n[parameters.x]"),
        14,
        "parameters.y: no slot reads this parameter. Give it low and high if the body reads it",
    ),
    "bounds_on_a_slots_number.py.j2": (
        changed(CODE, "= 0.1\n", "= 0.1\nlow = 0\nhigh = 0.5\n"),
        14,
        "parameters.x: the body does not read this parameter. A number in a slot takes no bounds",
    ),
    "half_bounds.py.j2": (changed(CODE, "high = 1000\n", ""), 17, "expected default, low, high"),
    "wrong_scale.py.j2": (changed(CODE, '"log"', '"lg"'), 21, "expected linear or log, found 'lg'"),
    "undefined_slot.py.j2": (changed(CODE, "{{ narrow }}", "{{ wide }}"), 25, "'wide' is undefined"),
    "bad_jinja.py.j2": (changed(CODE, "{{ ends }}", "{% ends %}"), 24, "unknown tag 'ends'"),
    "instance_unknown_template.py.j2": (
        changed(INSTANCE, '"ladder"', '"lader"'),
        3,
        f"unknown template; expected one of {', '.join(general_templates())}, found 'lader'",
    ),
    "instance_template_list.py.j2": (changed(INSTANCE, '"ladder"', "[1]"), 3, "unknown template"),
    "instance_and_body.py.j2": (INSTANCE + CODE.split("#}\n")[1], 3, "has both a template and a body"),
    "instance_unknown_slot.py.j2": (
        changed(INSTANCE, "otherwise =", 'elsewhere = "FP16"\notherwise ='),
        10,
        "unknown slot, found 'elsewhere'",
    ),
    "instance_missing_slot.py.j2": (
        changed(INSTANCE, 'otherwise = "FP16"\n', ""),
        1,
        "otherwise: bad slot; expected the text of a format",
    ),
    "instance_bad_clause.py.j2": (
        changed(INSTANCE, 'p.edge\', "FP32"]', "p.edge']"),
        6,
        'expected a list of ["mask", "FORMAT"] pairs',
    ),
    "instance_bad_mask.py.j2": (
        changed(INSTANCE, "> p.t", ">= p.t"),
        8,
        "this is not in the language of slots",
    ),
    "instance_with_bounds.py.j2": (
        changed(INSTANCE, "edge = 0.1", "edge = {default = 0.1, low = 0.0, high = 0.2}"),
        13,
        "parameters.edge: bad parameter; expected its value alone",
    ),
    "rendered_syntax.py.j2": (
        "{#\n#}\ndef allocate(model, p)\n    pass\n",
        1,
        "(rendered), line 1: not Python",
    ),
    "rendered_no_rule.py.j2": ("{#\n#}\nx = 1\n", 1, "defines no rule"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_left_out_and_named_by_file_and_line(folder, name):
    text, line, said = BROKEN[name]
    file = write(folder, name, text)
    write(folder, "good.py", GOOD)
    catalogue = load_catalogue([folder])
    assert list(catalogue.heuristics) == ["good"]
    (broken,) = catalogue.broken
    assert broken.name == plugin_name(file)
    assert broken.file == str(file)
    message = str(broken.error)
    assert message.startswith(str(file))
    assert said in message
    assert broken.error.place == f"line {line}", message
    with pytest.raises(PluginError) as caught:
        catalogue.get(broken.name)
    assert caught.value is broken.error


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("no_rule.py", b"x = 1\n", "defines no rule; expected a function allocate(model, p)"),
        ("rule_is_a_number.py", b"allocate = 3\n", "defines no rule"),
        ("not_utf8.py", b"# \xff\n", "cannot be read"),
        ("not_utf8_2.py.j2", b"{# \xff #}\n", "cannot be read"),
        ("null_byte.py", b"x = '\0'\n", "null bytes"),
        (
            "two words.py",
            GOOD.encode(),
            "bad name; expected a Python identifier before .py, found 'two words'",
        ),
        ("ladder.py", GOOD.encode(), "this name belongs to a general template"),
        ("cheapest.py.j2", CODE.encode(), "this name belongs to a general template"),
    ],
)
def test_what_is_no_plugin_at_all_is_named_by_file(folder, name, content, said):
    (folder / name).write_bytes(content)
    catalogue = load_catalogue([folder])
    assert catalogue.heuristics == {}
    assert str(catalogue.broken[0].error).startswith(str(folder / name))
    assert said in str(catalogue.broken[0].error)
    assert catalogue.templates == general_templates()


def test_a_folder_that_looks_like_a_plugin_is_broken_too(folder):
    (folder / "folder.py").mkdir()
    assert "cannot be read" in str(load_catalogue([folder]).broken[0].error)


def test_dropping_a_file_into_heuristics_is_all_it_takes(folder):
    before = load_catalogue()
    write(folder, "zebra.py", GOOD)
    write(folder, "ant.py.j2", CODE)
    write(folder, "_helper.py", "not a plugin")
    write(folder, ".hidden.py", "not a plugin")
    write(folder, "notes.md", "not a plugin")
    after = load_catalogue()
    assert set(after.heuristics) - set(before.heuristics) == {"zebra", "ant"}
    assert list(after.heuristics) == sorted(after.heuristics)
    assert after.get("zebra").file == str(folder.resolve() / "zebra.py")
    assert {"zebra", "ant", "ladder"} <= set(after.templates)
    assert after.broken == ()


def test_the_shipped_heuristics_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "wider_fp16_zone" in load_catalogue().heuristics
    assert len(heuristic_folders()) == 1


def test_a_file_in_the_working_directory_comes_on_top(folder):
    write(folder, "uniform_fp16.py", GOOD)
    found = load_catalogue()
    assert found.get("uniform_fp16").summary == "The ends are FP32."
    # Even a broken one: running the shipped rule instead would not be what the user asked for.
    write(folder, "uniform_fp16.py", "1 +")
    found = load_catalogue()
    assert "uniform_fp16" not in found.heuristics
    with pytest.raises(PluginError, match="not Python"):
        found.get("uniform_fp16")


def test_later_folders_mend_earlier_ones(folder, tmp_path):
    write(folder, "mine.py", "1 +")
    later = tmp_path / "later"
    later.mkdir()
    write(later, "mine.py", GOOD)
    assert load_catalogue([folder, later]).broken == ()
    assert load_catalogue([later, folder]).heuristics == {}


def test_asking_for_an_unknown_heuristic_suggests_one():
    catalogue = load_catalogue()
    with pytest.raises(
        PluginError, match=r"unknown heuristic.*found 'uniform_fp61'. Did you mean uniform_fp16\?"
    ):
        catalogue.get("uniform_fp61")
    with pytest.raises(PluginError, match="evolve heuristics list"):
        catalogue.get("qqq")


def test_heuristics_are_selected_by_role_by_name_and_all(folder):
    write(folder, "one.py", GOOD)
    write(folder, "two.py.j2", CODE)
    write(folder, "three.py.j2", INSTANCE)
    catalogue = load_catalogue([folder])

    def names(*words):
        return [each.name for each in catalogue.select(words)]

    assert names("baseline") == ["one"]
    assert names("published", "user") == ["two", "three"]
    assert names("two", "one", "two", "baseline") == ["two", "one"]
    assert names("all") == ["one", "three", "two"]
    assert names() == []
    with pytest.raises(PluginError, match="unknown heuristic"):
        names("one", "nobody")


def test_heuristics_are_found_by_name_and_by_path(folder, tmp_path):
    write(folder, "one.py", GOOD)
    elsewhere = write(tmp_path, "elsewhere.py.j2", CODE)
    catalogue = load_catalogue([folder])
    assert [each.name for each in find_heuristics(catalogue, ["one", str(elsewhere)])] == ["one", "elsewhere"]
    assert [each.name for each in find_heuristics(catalogue, [])] == ["one"]
    with pytest.raises(PluginError, match="cannot be read"):
        find_heuristics(catalogue, ["nowhere.py"])


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a package that names an entry point."""

    def installed(value, files):
        site = tmp_path / "site"
        for name, text in files.items():
            file = site / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        described = site / "their_rules-1.0.dist-info"
        described.mkdir(parents=True)
        (described / "METADATA").write_text("Metadata-Version: 2.1\nName: their-rules\nVersion: 1.0\n")
        (described / "entry_points.txt").write_text(f"[{plugins.ENTRY_POINTS}]\ntheirs = {value}\n")
        monkeypatch.syspath_prepend(str(site))

    return installed


def test_a_package_can_bring_a_folder_of_heuristics(install):
    install(
        "their_rules.folder",
        {
            "their_rules/__init__.py": "",
            "their_rules/folder/__init__.py": "",
            "their_rules/folder/theirs_a.py": GOOD,
            "their_rules/folder/theirs_b.py.j2": CODE,
        },
    )
    found = load_catalogue([])
    assert list(found.heuristics) == ["theirs_a", "theirs_b"]
    assert found.broken == ()


def test_a_package_can_bring_one_module(install, folder):
    install("their_single_rule", {"their_single_rule.py": GOOD})
    assert list(load_catalogue([]).heuristics) == ["their_single_rule"]
    # Folders come on top of packages.
    write(folder, "their_single_rule.py.j2", CODE)
    assert load_catalogue().get("their_single_rule").role == "published"


@pytest.mark.parametrize(
    ("value", "files", "said"),
    [
        ("their_lost_rules", {}, "there is no such module"),
        ("their_lost_rules.folder", {}, "cannot be imported: ModuleNotFoundError"),
        ("their_failing_rules.a", {"their_failing_rules/__init__.py": "1 / 0"}, "ZeroDivisionError"),
    ],
)
def test_an_entry_point_that_leads_nowhere_is_named(install, value, files, said):
    install(value, files)
    found = load_catalogue([])
    assert found.heuristics == {}
    (broken,) = found.broken
    assert broken.name == "theirs"
    assert str(broken.error).startswith("entry point theirs: ")
    assert said in str(broken.error)
    assert value in str(broken.error)


def test_code_templates_have_no_lines_of_their_own_in_messages(folder):
    """A message about a rendered line quotes it, for no file has it."""
    text = changed(CODE, '"{{ narrow }}")', '"{{ narrow }}"')
    with pytest.raises(
        TemplateError, match=r"mine\.py\.j2 \(rendered\), line 3: not Python.*found 'return model"
    ):
        load_plugin(write(folder, "mine.py.j2", text))


def test_the_general_templates_load_from_a_copy(folder):
    """Their defaults are rules: a copy under another name is a plugin like any other."""
    for name, template in general_templates().items():
        copy = folder / f"my_{name}.py.j2"
        shutil.copy(template.file, copy)
        found = load_plugin(copy)
        assert found.summary
        assert found.template.slots == template.slots
