"""The state folder: what others read in it is whole, and for its owner alone."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cli.state import StateFolder


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
