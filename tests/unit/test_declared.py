"""Files that declare plugins: what is read of them, and that whatever is wrong is told with its line, all at once."""

import json
from pathlib import Path

import jsonschema_rs
import pytest
import yaml
from plugin_registry_client.command.declared import OPTIONAL, REQUIRED, read_declared
from plugin_registry_client.command.refusal import Refusal

from tests.unit.test_documents import ROOT

CHECKSUM = "sha256:" + "ab" * 32
ONE = f"""
  - name: nginx logs
    version: 1.10.0
    pluginType: log
    artifactUrl: https://a.example/x
    checksum: {CHECKSUM}
"""
SCHEMA = json.loads((ROOT / "client/plugin_registry_client/plugins.schema.json").read_text())


def written(tmp_path: Path, text: str, name: str = "plugins.yaml") -> Path:
    (tmp_path / name).write_text(text)
    return tmp_path / name


def refused(*paths: Path) -> list[str]:
    with pytest.raises(Refusal) as error:
        read_declared(paths)
    assert error.value.exit_code == 2
    return list(error.value.details)


def test_every_value_is_the_text_that_stands_there(tmp_path: Path) -> None:
    """YAML would make numbers, dates and truths of these."""
    text = (
        f"plugins:\n  - {{name: no, version: 1.10, pluginType: log, artifactUrl: 2026-01-15, checksum: {CHECKSUM}}}"
    )
    (found,) = read_declared([written(tmp_path, text)])
    assert found.submission == {
        "name": "no",
        "version": "1.10",
        "pluginType": "log",
        "artifactUrl": "2026-01-15",
        "checksum": CHECKSUM,
    }


def test_files_beside_it_are_read_from_where_it_stands(tmp_path: Path) -> None:
    (tmp_path / "artifact").write_bytes(b"abc")
    (tmp_path / "schema.json").write_text('{"type": "object"}')
    text = "plugins:" + ONE.replace(f"checksum: {CHECKSUM}", "file: artifact\n    configSchemaFile: schema.json")
    (found,) = read_declared([written(tmp_path, text)])
    assert found.submission["checksum"].startswith("sha256:ba7816bf")
    assert found.submission["configSchema"] == '{"type": "object"}'


def test_what_a_declaration_tells_to_all_readers_is_of_its_own_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text('{"auths": "hunter2"}')
    (tmp_path / "within").mkdir()
    for schema in ("../secret.json", str(tmp_path / "secret.json")):
        text = "plugins:" + ONE + f"    configSchemaFile: {schema}\n"
        (told,) = refused(written(tmp_path / "within", text))
        assert "must be of this folder" in told
        assert "hunter2" not in told
    text = "plugins:" + ONE.replace(f"checksum: {CHECKSUM}", "file: .")
    assert "cannot be read" in refused(written(tmp_path / "within", text))[0]


def test_json_is_json_whatever_it_is_indented_with(tmp_path: Path) -> None:
    plugin = {
        "name": "a\u2028b\u0085",
        "version": "1.0.0",
        "pluginType": "log",
        "artifactUrl": "x",
        "checksum": CHECKSUM,
    }
    written(tmp_path, json.dumps({"plugins": [plugin]}, indent="\t"), "a.json")
    line = json.dumps(plugin | {"version": "2.0.0"}, ensure_ascii=False)
    written(tmp_path, f"{line}\n{line.replace('2.0.0', '3.0.0')}\n", "b.jsonl")
    found = [(each.submission["version"], each.line) for each in read_declared([tmp_path])]
    assert found == [("1.0.0", 3), ("2.0.0", 1), ("3.0.0", 2)]


def test_a_folder_is_all_its_files_and_each_knows_its_line(tmp_path: Path) -> None:
    written(tmp_path, "plugins:" + ONE + ONE.replace("nginx logs", "other"))
    line = {"name": "third", "version": "1.0.0", "pluginType": "log", "artifactUrl": "x", "checksum": CHECKSUM}
    written(tmp_path, "\ufeff" + json.dumps(line) + "\n\n" + json.dumps(line | {"name": "fourth"}) + "\n", "z.jsonl")
    written(tmp_path, json.dumps({"$schema": "x", "plugins": [line | {"name": "fifth"}]}, indent=1), "y.json")
    written(tmp_path, "not looked at", "README.md")
    found = [(each.title, each.file.name, each.line) for each in read_declared([tmp_path])]
    assert found == [
        ("nginx logs 1.10.0", "plugins.yaml", 2),
        ("other 1.10.0", "plugins.yaml", 8),
        ("fifth 1.0.0", "y.json", 4),
        ("third 1.0.0", "z.jsonl", 1),
        ("fourth 1.0.0", "z.jsonl", 3),
    ]


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ("- name: x", 1, "the file must have members"),
        ("plugin: []", 1, "do you mean plugins?"),
        ("plugins: 7", 1, "must hold a list called plugins"),
        ("plugins:\n  - x", 2, "a plugin must have members"),
        ("plugins:\n  - name: x", 2, "has no version, no pluginType, no artifactUrl"),
        ("plugins:" + ONE.replace("artifactUrl", "artifactURL"), 5, "do you mean artifactUrl?"),
        ("plugins:" + ONE + "    name: y\n", 7, "name stands there twice"),
        ("plugins:" + ONE + "    file: x\n", 2, "either a checksum, or a file"),
        ("plugins:" + ONE.replace("checksum: ", "pluginRuntime: "), 2, "either a checksum, or a file"),
        ("plugins:" + ONE + "    configSchema: '{}'\n    configSchemaFile: x\n", 2, "leave one of them out"),
        ("plugins:" + ONE + "    configSchemaFile: nowhere\n", 2, "nowhere cannot be read"),
        ("plugins:" + ONE + "    pluginRuntime: [a]\n", 7, "pluginRuntime must be a text"),
        ("plugins:" + ONE + ONE, 8, "is declared at"),
        ("plugins: [", 1, "is no YAML"),
        ("plugins: *x", 1, "is no YAML"),
        ("plugins: \x01", 1, "is no YAML"),
        ("[" * 20_000, 1, "is no YAML"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(tmp_path: Path, text: str, line: int, told: str) -> None:
    file = written(tmp_path, text)
    (detail,) = refused(file)
    assert detail.startswith(f"{file}:{line}: ")
    assert told in detail


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    first = written(tmp_path, "plugins:\n  - x\n  - y\n")
    second = written(tmp_path, '{"name": 1}\nx: [\n', "second.jsonl")
    (tmp_path / "third.yaml").write_bytes(b"\xff")
    told = refused(first, second, tmp_path / "third.yaml")
    assert [each.rpartition("/")[2].partition(" ")[0] for each in told] == [
        "plugins.yaml:2:",
        "plugins.yaml:3:",
        "second.jsonl:1:",
        "second.jsonl:2:",
        "third.yaml:",
    ]


def test_nothing_declared_is_told(tmp_path: Path) -> None:
    assert refused(written(tmp_path, "plugins: []")) == []
    assert refused(written(tmp_path, "")) == []
    (tmp_path / "empty").mkdir()
    assert refused(tmp_path / "empty") == []


def test_its_schema_is_one_and_takes_what_is_taken() -> None:
    validator = jsonschema_rs.validator_for(SCHEMA)
    assert set(SCHEMA["$defs"]["plugin"]["properties"]) == {*REQUIRED, *OPTIONAL}
    assert validator.is_valid(yaml.safe_load("plugins:" + ONE))
    for wrong in (ONE + "    file: x\n", ONE.replace("name:", "nam:"), ONE.replace(CHECKSUM, "sha256:ab")):
        assert not validator.is_valid(yaml.safe_load("plugins:" + wrong))
