from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from export_cases import layer, llama

from evolve.allocations import Allocation, save_allocation
from evolve.cli import evolve
from evolve.errors import InputError
from evolve.exporters import TARGETS


@pytest.fixture
def given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "allocation.json"
    save_allocation(llama(["INT4_G128", "INT5_G64", "INT8"]), path)
    return path


def export(*arguments: str) -> Result:
    return CliRunner().invoke(evolve, ["export", *arguments])


def test_to_standard_output(given: Path) -> None:
    done = export(str(given), "--to", "gptqmodel")
    assert done.exit_code == 0
    config = json.loads(done.stdout)
    assert config["quant_method"] == "gptq"
    first, second, *_ = done.stderr.splitlines()
    assert first == "gptqmodel: 21 layers, 5.810 bits a weight asked for, 8.038 written"
    expected = (
        "  rounded model.embed_tokens: INT4_G128 → FP16 (4.12 → 16.00 bits): gptqmodel does not quantize"
    )
    assert second == f"{expected} layers of type Embedding"


def test_to_a_file(given: Path) -> None:
    done = export(str(given), "--to", "mlx", "--output", "out.json")
    assert done.stdout == "wrote out.json\n"
    assert "quantization" in json.loads(Path("out.json").read_text())
    again = export(str(given), "--to", "mlx", "--output", "out.json")
    assert isinstance(again.exception, InputError)
    assert str(again.exception) == "out.json: exists already. Choose another --output, or --overwrite."
    assert export(str(given), "--to", "mlx", "--output", "out.json", "--overwrite").exit_code == 0
    assert sorted(each.name for each in Path().iterdir()) == ["allocation.json", "out.json"]


def test_several_to_a_folder(given: Path) -> None:
    done = export(str(given), "--to", "torchao,mlx", "--to", "modelopt", "--output", "exports", "--json")
    files = {each["target"]: each["file"] for each in json.loads(done.stdout)}
    assert files == {
        "torchao": str(Path("exports/torchao.json")),
        "mlx": str(Path("exports/mlx.json")),
        "modelopt": str(Path("exports/modelopt.yaml")),
    }
    assert all(Path(each).stat().st_size for each in files.values())


def test_a_target_that_fails_keeps_no_other_from_being_written(given: Path) -> None:
    done = export(str(given), "--to", "llama.cpp,mlx", "--output", "exports")
    assert isinstance(done.exception, InputError)
    assert str(done.exception) == "--to: 1 of 2 targets not written, found ['llama.cpp']"
    assert done.stdout == "wrote exports/mlx.json\n"
    assert "llama.cpp: not written: llama.cpp: no name in GGUF for this layer" in done.stderr
    assert [each.name for each in Path("exports").iterdir()] == ["mlx.json"]


def test_json_has_the_targets_that_fail_too(given: Path) -> None:
    done = export(str(given), "--to", "mlx,llama.cpp,torchao", "--json")
    assert isinstance(done.exception, InputError)
    found = json.loads(done.stdout)
    assert [each["target"] for each in found] == ["mlx", "llama.cpp", "torchao"]
    assert list(found[1]) == ["target", "file", "error"]
    assert "no name in GGUF" in found[1]["error"]
    assert found[0]["documents"]
    assert found[2]["documents"]


def test_where_all_targets_fail_no_folder_is_made(given: Path) -> None:
    done = export(str(given), "--to", "mlx,torchao", "--formats", "INT9", "--output", "exports")
    assert isinstance(done.exception, InputError)
    assert "2 of 2 targets not written, found ['mlx', 'torchao']" in str(done.exception)
    assert not Path("exports").exists()


def test_json_says_everything(given: Path) -> None:
    found = json.loads(export(str(given), "--to", "mlx", "--json").stdout)
    assert list(found[0]) == ["target", "file", "documents", "avg_bits", "layers", "roundings", "notes"]
    assert found[0]["file"] is None
    assert list(found[0]["layers"][0]) == ["layer", "target_name", "format", "bits"]
    assert list(found[0]["roundings"][0]) == [
        "layer",
        "asked",
        "asked_bits",
        "written",
        "written_bits",
        "why",
    ]


def test_only_some_formats(given: Path) -> None:
    found = json.loads(
        export(str(given), "--to", "torchao", "--formats", "INT8_G32,INT8_G128", "--json").stdout
    )
    assert {each["format"] for each in found[0]["layers"]} == {"INT8_G32", "INT8_G128", "FP32"}


def test_names_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_allocation(Allocation("m", (layer("fc", "Linear", (8, 64), "INT8_ASYM_G64"),)), "a.json")
    Path("names.json").write_text('{"fc": "model.fc"}')
    done = export("a.json", "--to", "mlx", "--network-names", "names.json")
    assert json.loads(done.stdout)["quantization"]["model.fc"]["bits"] == 8
    for text, words in (("[]", "not an object"), ('{"fc": 1}', "bad name"), ("{", "not JSON")):
        Path("names.json").write_text(text)
        done = export("a.json", "--to", "mlx", "--network-names", "names.json")
        assert isinstance(done.exception, InputError)
        assert words in str(done.exception)
        assert "names.json" in str(done.exception)


def test_the_list() -> None:
    shown = json.loads(export("--list", "--json").stdout)
    assert [each["target"] for each in shown] == list(TARGETS)
    assert "INT4_ASYM_G64" in next(each["formats"] for each in shown if each["target"] == "mlx")
    assert "tensor-types.txt" in export("--list").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--to", "mlx"), "ALLOCATION.json: missing"),
        (("allocation.json",), "--to: missing"),
        (("allocation.json", "--to", "onnx"), "--to: no such target, found 'onnx'"),
        (("allocation.json", "--to", "mlx,torchao"), "--output: missing; expected a folder"),
        (("nothing.json", "--to", "mlx"), "nothing.json: no such file"),
        (("allocation.json", "--to", "mlx", "--output", "no/such/file"), "--output: cannot be written"),
        (("allocation.json", "--to", "mlx", "--formats", "INT9"), "--formats: mlx has none of these"),
    ],
)
def test_refusals(given: Path, arguments: tuple[str, ...], words: str) -> None:
    done = export(*arguments)
    assert isinstance(done.exception, InputError)
    assert words in str(done.exception)
    assert done.stdout == ""
    assert sorted(each.name for each in Path().iterdir()) == ["allocation.json"]


def test_the_base_install_is_enough(given: Path) -> None:
    # Without torch, its friends or a YAML library, every target is written.
    names = given.with_name("names.json")
    layers = llama().names
    names.write_text(json.dumps({name: f"blk.{at}.a.weight" for at, name in enumerate(layers)}))
    code = f"""
import sys
for name in ("torch", "torchao", "compressed_tensors", "onnx", "onnxruntime", "gguf", "yaml"):
    sys.modules[name] = None
from evolve.cli import main
sys.argv = ["evolve", "export", {str(given)!r}, "--to", {",".join(TARGETS)!r}]
sys.argv += ["--network-names", {str(names)!r}, "--output", "all", "--json"]
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=given.parent)
    assert done.returncode == 0, done.stderr
    assert len(list((given.parent / "all").iterdir())) == len(TARGETS)
