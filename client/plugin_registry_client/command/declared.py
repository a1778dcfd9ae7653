"""Files that declare plugins: YAML or JSON with a list, or JSON lines. `plugins.schema.json` is theirs, for editors.

Every value is a text, as YAML has it before it guesses: version 1.10 is not the number 1.1.
"""

import difflib
import errno
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import yaml

from plugin_registry_client.command.refusal import Refusal
from plugin_registry_client.errors import USAGE

SUFFIXES = (".yaml", ".yml", ".json", ".jsonl")
REQUIRED = ("name", "version", "pluginType", "artifactUrl")
OPTIONAL = ("checksum", "file", "configSchema", "configSchemaFile", "pluginRuntime")


@dataclass(frozen=True)
class Declared:
    """One plugin that a file declares: the body of RegisterPlugin, and where it stands."""

    submission: dict[str, str]
    file: Path
    line: int

    @property
    def title(self) -> str:
        """Its name and version."""
        return f"{self.submission['name']} {self.submission['version']}"

    @property
    def where(self) -> str:
        """The file and the line."""
        return f"{self.file}:{self.line}"


class _WrongNode(Exception):
    """What is wrong at a line of a file."""

    def __init__(self, node: yaml.Node, what: str) -> None:
        super().__init__(what)
        self.line = node.start_mark.line + 1


class Undeclared(Refusal):
    """What is declared cannot be registered: *wrong* says where and why."""

    def __init__(self, wrong: Sequence["Wrong"]) -> None:
        details = [str(each) for each in wrong]
        super().__init__("What is declared cannot be registered so; nothing was submitted.", USAGE, details=details)
        self.wrong = wrong


class Wrong(NamedTuple):
    """What is wrong at a line of a file, or with all of it: line 0."""

    file: Path
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.file}{f':{self.line}' if self.line else ''}: {self.what}"


def read_declared(paths: Sequence[Path]) -> list[Declared]:
    """Return all that *paths*, files or folders of them, declare.

    Raises:
        Undeclared: with each thing that is wrong, in all of them.
        Refusal: nothing is declared there.
    """
    declared: list[Declared] = []
    wrong: list[Wrong] = []
    for file in _files(paths):
        for each in _declared_in(file):
            if isinstance(each, Declared):
                declared.append(each)
            else:
                wrong.append(each)
    first: dict[tuple[str, str], Declared] = {}
    for each in declared:
        same = first.setdefault((each.submission["name"], each.submission["version"]), each)
        if same is not each:
            wrong.append(Wrong(each.file, each.line, f"{each.title} is declared at {same.where} already"))
    if wrong:
        raise Undeclared(wrong)
    if not declared:
        raise Refusal("Nothing is declared there.", USAGE)
    return declared


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            found = sorted(each for each in path.iterdir() if each.suffix in SUFFIXES and each.is_file())
            if not found:
                raise Refusal(f"{path} holds no file that ends in {', '.join(SUFFIXES)}.", USAGE)
            yield from found
        else:
            yield path


def _declared_in(file: Path) -> Iterator[Declared | Wrong]:
    """Yield what *file* declares, and what is wrong in it."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is no text in UTF-8"
        yield Wrong(file, 0, f"cannot be read ({why})")
        return
    if file.suffix in {".json", ".jsonl"}:
        text = text.replace("\t", " ")  # which JSON may be indented with, and YAML may not
    lines = enumerate(text.split("\n")) if file.suffix == ".jsonl" else iter([(0, text)])
    for offset, part in lines:
        if not part.strip():
            continue
        try:
            root = yaml.compose(part, Loader=yaml.SafeLoader)
            nodes = [root] if root and file.suffix == ".jsonl" else _listed(root)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            yield Wrong(file, (mark.line if mark else 0) + offset + 1, f"is no YAML: {error.problem}")
            continue
        except (yaml.YAMLError, RecursionError):
            yield Wrong(file, offset + 1, "is no YAML")
            continue
        except _WrongNode as error:
            yield Wrong(file, error.line + offset, str(error))
            continue
        for node in nodes:
            try:
                yield Declared(_submission(node, file), file, node.start_mark.line + offset + 1)
            except _WrongNode as error:
                yield Wrong(file, error.line + offset, str(error))


def _listed(root: yaml.Node | None) -> list[yaml.Node]:
    if root is None:
        return []
    top = _members(root, "the file", ("$schema", "plugins"))
    listed = top.get("plugins")
    if not isinstance(listed, yaml.SequenceNode):
        raise _WrongNode(root, "must hold a list called plugins")
    return list(listed.value)


def _submission(node: yaml.Node, file: Path) -> dict[str, str]:
    members = _members(node, "a plugin", (*REQUIRED, *OPTIONAL))
    given = {key: _text(key, value) for key, value in members.items()}
    missing = [key for key in REQUIRED if key not in given]
    if missing:
        raise _WrongNode(node, f"has no {', no '.join(missing)}")
    if ("checksum" in given) == ("file" in given):
        raise _WrongNode(node, "must have either a checksum, or a file to compute it from")
    if "configSchema" in given and "configSchemaFile" in given:
        raise _WrongNode(node, "has a configSchema and a configSchemaFile: leave one of them out")
    submission = {key: given[key] for key in (*REQUIRED, "checksum", "configSchema", "pluginRuntime") if key in given}
    try:
        if "file" in given:
            submission["checksum"] = checksum_of(file.parent / given["file"])
        if "configSchemaFile" in given:
            schema = (file.parent / given["configSchemaFile"]).resolve()
            if not any(schema.is_relative_to(each) for each in (file.parent.resolve(), Path.cwd())):
                raise _WrongNode(
                    node, "configSchemaFile must be of this folder: what it holds is told to all readers"
                )
            submission["configSchema"] = schema.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = error.filename if isinstance(error, OSError) else given["configSchemaFile"]
        raise _WrongNode(node, f"{what} cannot be read") from error
    return submission


def _members(node: yaml.Node, what: str, known: Sequence[str]) -> dict[str, yaml.Node]:
    if not isinstance(node, yaml.MappingNode):
        raise _WrongNode(node, f"{what} must have members, such as name: nginx-logs")
    members: dict[str, yaml.Node] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.value not in known:
            word = str(key.value) if isinstance(key, yaml.ScalarNode) else "a list"
            near = difflib.get_close_matches(word, known, 1)
            hint = f"do you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            raise _WrongNode(key, f"{what} has no {word}; {hint}")
        if key.value in members:
            raise _WrongNode(key, f"{key.value} stands there twice")
        members[key.value] = value
    return members


def _text(key: str, node: yaml.Node) -> str:
    if not isinstance(node, yaml.ScalarNode):
        raise _WrongNode(node, f"{key} must be a text")
    return str(node.value)


def checksum_of(artifact: Path) -> str:
    """Return the checksum of a file, as a submission has it.

    Raises:
        OSError: it cannot be read.
    """
    if not artifact.is_file():
        raise FileNotFoundError(errno.ENOENT, "is no file", str(artifact))
    with artifact.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def text_or_file(value: str) -> str:
    """Return *value*, or what the file holds that it names as ``@FILE``.

    Raises:
        Refusal: that cannot be read.
    """
    if not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Refusal(f"Cannot read {value[1:]}.", USAGE) from error


def the_checksum(checksum: str | None, artifact: Path | None) -> str:
    """Return *checksum*, or that of the file *artifact*; one of them is given.

    Raises:
        Refusal: not so, or the file cannot be read.
    """
    if (checksum is None) == (artifact is None):
        raise Refusal("Give either --checksum or --file.", USAGE)
    if artifact is None:
        return str(checksum)
    try:
        return checksum_of(artifact)
    except OSError as error:
        raise Refusal(f"Cannot read {artifact}: {error.strerror}.", USAGE) from error
