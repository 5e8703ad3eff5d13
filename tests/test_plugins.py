"""Plugins: what is found where."""

from __future__ import annotations

import shutil
import textwrap

import pytest
from plugin_texts import CODE, GOOD, INSTANCE, changed, write

from evolve import plugins
from evolve.errors import PluginError, TemplateError
from evolve.parameters import linear
from evolve.plugin_files import general_templates, load_plugin
from evolve.plugins import find_heuristics, heuristic_folders, load_catalogue


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder of plugins in an otherwise empty working directory."""
    monkeypatch.chdir(tmp_path)
    made = tmp_path / "heuristics"
    made.mkdir()
    return made


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
