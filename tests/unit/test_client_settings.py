"""Which registry a client means, and with which token: a token goes only where it was given for."""

from pathlib import Path

import pytest
from plugin_registry_client.connection import parsed_url
from plugin_registry_client.errors import BadSettings, NoToken
from plugin_registry_client.settings import Config, Known, Meant, find_registry, said_over

A, B = "https://a.example", "https://b.example/prefix"


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path), "REGISTRY_STATE_DIR": str(tmp_path / "no-state")}


def logged_in(home: dict[str, str]) -> Config:
    config = Config.of(home)
    config.keep("a", Known(A, "prg_a"), default=False)
    config.keep("b", Known(B, "prg_b", Path("/etc/b.pem")), default=False)
    return config


@pytest.mark.parametrize(
    ("said", "name", "meant"),
    [
        ({"REGISTRY_URL": A, "REGISTRY_TOKEN": "prg_x"}, None, Meant(A, "prg_x")),
        ({"REGISTRY_URL": f"{A}/", "REGISTRY_TOKEN": " prg_x\n"}, None, Meant(A, " prg_x\n")),
        ({"REGISTRY_URL": B}, None, Meant(B, "prg_b", Path("/etc/b.pem"), "b")),
        ({"REGISTRY_TOKEN": "prg_x"}, None, Meant("http://127.0.0.1:8080", "prg_x")),
        ({}, None, Meant(A, "prg_a", None, "a")),
        ({}, "b", Meant(B, "prg_b", Path("/etc/b.pem"), "b")),
        ({"REGISTRY_CA_FILE": "/c.pem"}, "b", Meant(B, "prg_b", Path("/c.pem"), "b")),
    ],
)
def test_what_is_said_comes_before_what_is_kept(
    home: dict[str, str], said: dict[str, str], name: str | None, meant: Meant
) -> None:
    logged_in(home)
    assert find_registry(name, home | said) == meant


def test_without_anything_kept_the_local_address_is_meant(home: dict[str, str]) -> None:
    assert find_registry(None, home | {"REGISTRY_TOKEN": "prg_x"}) == Meant("http://127.0.0.1:8080", "prg_x")


@pytest.mark.parametrize(
    ("said", "name", "kind", "told"),
    [
        ({}, None, NoToken, "run `plugin-registry login URL`"),
        ({"REGISTRY_URL": A}, None, NoToken, "no token for https://a.example"),
        ({"REGISTRY_URL": A, "REGISTRY_TOKEN": "x"}, "b", BadSettings, "leave one out"),
        ({"REGISTRY_TOKEN": "x"}, "b", BadSettings, "REGISTRY_TOKEN and --registry b both say"),
        ({}, "b", BadSettings, "No registry is called b .* there are: none"),
        ({"REGISTRY_TOKEN": "x", "REGISTRY_TOKEN_FILE": "y"}, None, BadSettings, "REGISTRY_TOKEN is set as well"),
        ({"REGISTRY_TOKEN_FILE": "/nowhere"}, None, BadSettings, "cannot be read: No such file"),
        ({"REGISTRY_TOKEN_FILE": "/dev/null"}, None, BadSettings, "is empty"),
    ],
)
def test_what_cannot_be_told_is_said(
    home: dict[str, str], said: dict[str, str], name: str | None, kind: type[Exception], told: str
) -> None:
    with pytest.raises(kind, match=told):
        find_registry(name, home | said)


def test_a_token_is_not_sent_elsewhere(home: dict[str, str]) -> None:
    """Neither a kept one, nor the environment's to what a program names."""
    logged_in(home)
    with pytest.raises(NoToken):
        find_registry(None, home | {"REGISTRY_URL": "https://a.example.attacker.example"})
    environment = home | {"REGISTRY_URL": A, "REGISTRY_TOKEN": "prg_x", "REGISTRY_TOKEN_FILE": "f"}
    assert "prg_x" not in said_over(environment, {"REGISTRY_URL": "https://c.example"}).values()
    assert "REGISTRY_TOKEN_FILE" not in said_over(environment, {"REGISTRY_TOKEN": "prg_y"})
    assert said_over(environment, {"REGISTRY_URL": A})["REGISTRY_TOKEN"] == "prg_x"


@pytest.mark.parametrize("broken", ["mode", "entry", "no home", "relative"])
def test_what_is_kept_is_not_looked_at_where_the_environment_says_everything(
    home: dict[str, str], broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = logged_in(home).path
    said = {"REGISTRY_URL": A, "REGISTRY_TOKEN": "prg_x"}
    if broken == "mode":
        path.chmod(0o644)
    elif broken == "entry":
        path.write_text("[registries.z]\nurl = 7\n" + path.read_text().partition("\n")[2])
        assert find_registry(None, home | {"REGISTRY_URL": B}).token == "prg_b"
    elif broken == "no home":
        monkeypatch.setattr(Path, "home", lambda: (_ for _ in ()).throw(RuntimeError("no home")))
        home = {}
        with pytest.raises(BadSettings, match="no home to keep"):
            find_registry("a", home)
    else:
        home = {"HOME": "", "XDG_CONFIG_HOME": "here"}
    assert find_registry(None, home | said) == Meant(A, "prg_x")


def test_a_config_folder_that_is_no_absolute_path_is_ignored(home: dict[str, str]) -> None:
    logged_in(home)
    assert Config.of(home | {"XDG_CONFIG_HOME": "here"}).names == ["a", "b"]


def test_a_token_stands_in_a_file_as_well(home: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "token").write_text("  prg_x \r\n")
    said = {"REGISTRY_URL": A, "REGISTRY_TOKEN_FILE": str(tmp_path / "token")}
    assert find_registry(None, home | said).token == "prg_x"


def test_what_login_keeps_is_its_owners_alone_and_whole(home: dict[str, str]) -> None:
    config = logged_in(home)
    assert config.path.stat().st_mode & 0o777 == 0o600
    assert config.path.parent.stat().st_mode & 0o777 == 0o700
    assert [each.name for each in config.path.parent.iterdir()] == ["config.toml"]
    again = Config.of(home)
    assert (again.default, again.names) == ("a", ["a", "b"])
    again.keep("b", Known(B, "prg_'\"\\\u00fc"), default=True)
    assert Config.of(home).known("b") == Known(B, "prg_'\"\\\u00fc")
    assert Config.of(home).default == "b"
    again.forget("b")
    assert (Config.of(home).default, Config.of(home).names) == (None, ["a"])
    with pytest.raises(BadSettings, match="No registry is called b"):
        again.forget("b")


def test_a_file_that_others_may_read_is_not_used(home: dict[str, str]) -> None:
    logged_in(home).path.chmod(0o640)
    with pytest.raises(BadSettings, match="chmod 600"):
        find_registry("a", home)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("registries = [", "is no TOML"),
        ("[registries.a]\ntoken = 'x'", "has no url"),
        ("[registries.a]\nurl = 'https://a.example'\ntoken = 7", "no text"),
        ("[registries.a]\nurl = 'ftp://a.example'", "must begin with https"),
        ("registries = 7", "No registry is called a"),
        ("[registries]\na = 7", "has no url"),
    ],
)
def test_a_file_that_holds_something_else_is_told(home: dict[str, str], text: str, told: str) -> None:
    path = logged_in(home).path
    path.write_text(text)
    with pytest.raises(BadSettings, match=told):
        find_registry("a", home)


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / ".config").write_text("a file")
    with pytest.raises(BadSettings, match="cannot be"):
        Config.of({"HOME": str(tmp_path)}).keep("a", Known(A, "prg_a"), default=False)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "must begin with"),
        ("registry.example", "write https://registry.example"),
        ("registry.example:8443", "must begin with"),
        ("prg_hunter2.x", r"https:// or http://\.$"),
        ("hunter2", r"https:// or http://\.$"),
        ("ftp://h", "must begin with"),
        ("http://u:hunter2@h", "may not hold a user or a password"),
        ("u:hunter2@h", "must begin with"),
        ("http://", "must be like"),
        ("http://h?x=hunter2", "must be like"),
        ("http://h#x", "must be like"),
        ("http://h:bad", "is none"),
        ("http://h:0", "must be like"),
        ("http://[::1", "is none"),
        ("http://h h", "must be like"),
    ],
)
def test_an_address_of_a_registry_is_one(text: str, told: str) -> None:
    with pytest.raises(BadSettings, match=told) as error:
        parsed_url(text)
    assert "hunter2" not in str(error.value)
    assert parsed_url("https://registry.example:8443/prefix/") == "https://registry.example:8443/prefix"
    assert parsed_url(" http://[::1]:1\n") == "http://[::1]:1"
