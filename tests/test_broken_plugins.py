"""What is said about plugins that are broken."""

from __future__ import annotations

import pytest
from plugin_texts import CODE, GOOD, INSTANCE, changed, write

from evolve.errors import PluginError
from evolve.plugin_files import general_templates, plugin_name
from evolve.plugins import load_catalogue


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder of plugins in an otherwise empty working directory."""
    monkeypatch.chdir(tmp_path)
    made = tmp_path / "heuristics"
    made.mkdir()
    return made


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
