"""The state folder: what others read in it is whole, and for its owner alone."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from plugin_registry_client.command.refusal import Refusal

from cli.state import MAX_SOCKET_PATH, StateFolder


@pytest.mark.parametrize(
    ("write", "file"), [(StateFolder.tell_address, "address"), (StateFolder.keep_token, "token")]
)
def test_who_reads_while_it_is_written_finds_all_of_the_old_or_all_of_the_new(
    tmp_path: Path, write: Callable[[StateFolder, str], None], file: str
) -> None:
    state = StateFolder(tmp_path)
    write(state, "old")
    with (tmp_path / file).open() as reader:
        write(state, "new")
        assert reader.read() == "old\n"
    assert (tmp_path / file).read_text() == "new\n"
    assert (tmp_path / file).stat().st_mode & 0o777 == 0o600
    assert [each.name for each in tmp_path.iterdir()] == [file]


def test_what_cannot_be_written_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    state.address_file.mkdir()  # cannot be replaced by a file, whoever asks
    with pytest.raises(IsADirectoryError):
        state.tell_address("http://127.0.0.1:1")
    assert [each.name for each in tmp_path.iterdir()] == ["address"]


def test_a_socket_stands_in_the_state_folder_or_else_where_its_path_is_short_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder for temporary files may be as deep as the state folder: CI's often is."""
    assert StateFolder(Path("/srv/registry")).socket_path() == Path("/srv/registry/valkey/valkey.sock")
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(deep))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    state = StateFolder(deep / "state")
    path = state.socket_path()
    try:
        assert len(os.fsencode(path)) <= MAX_SOCKET_PATH
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert state.socket_path() == path
    finally:
        state.close()
    assert not path.parent.exists(), "nothing is left behind"


def test_where_no_path_is_short_enough_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.state.MAX_SOCKET_PATH", 10)
    with pytest.raises(Refusal, match="shorter path"):
        StateFolder(Path("/srv/registry")).socket_path()
