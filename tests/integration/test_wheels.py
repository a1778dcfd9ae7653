"""The two distributions, built and installed where nothing else is: what each brings, what the light one weighs."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path
from shutil import copyfile

import pytest
from plugin_registry_client.command.main import GROUP, OF_THE_REGISTRY

from tests.running import PROJECT, one_sentence
from tests.wheels import built, install, uninstall

MOST_BYTES = 20 * 2**20


def light() -> set[str]:
    """Return the names of all that the light client needs, itself not among them."""
    found: set[str] = set()
    waiting = ["plugin-registry-client"]
    while waiting:
        for each in distribution(waiting.pop()).requires or ():
            name = re.split(r"[^A-Za-z0-9._-]", each, maxsplit=1)[0].lower()
            if "extra ==" not in each and "win32" not in each and "Windows" not in each and name not in found:
                found.add(name)
                waiting.append(name)
    return found


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("wheels")
    both = [built(project, folder) for project in (PROJECT / "client", PROJECT)]
    return {each.name.partition("-")[0]: each for each in both}


@pytest.fixture(scope="module")
def alone(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an environment that holds the light client, what it needs, and nothing else."""
    folder = tmp_path_factory.mktemp("alone") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=300)
    (site,) = folder.glob("lib/python*/site-packages")
    for name in light():
        for file in distribution(name).files or ():
            if ".." not in file.parts and file.suffix != ".pyc":
                (site / file).parent.mkdir(parents=True, exist_ok=True)
                copyfile(str(file.locate()), site / file)
    install(wheels["plugin_registry_client"], folder)
    return folder


def _run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder)}
    return subprocess.run(
        [folder / "bin/plugin-registry", *words],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_light_client_works_alone_and_is_light(alone: Path) -> None:
    helped = _run(alone, "--help")
    assert helped.returncode == 0, helped.stderr
    assert "register " in helped.stdout
    assert " up " not in helped.stdout
    assert _run(alone, "list").returncode == 4, "there is no token"
    assert _run(alone, "register", "--schema").stdout.startswith("{")
    (site,) = alone.glob("lib/python*/site-packages")
    size = sum(each.stat().st_size for each in site.rglob("*") if each.suffix != ".pyc")
    assert size < MOST_BYTES


def test_a_verb_of_the_registry_says_what_to_install(alone: Path) -> None:
    for verb in ("up", "migrate", "doctor"):
        done = _run(alone, verb)
        assert done.returncode == 2
        assert f"`{verb}` is a verb of the registry itself" in done.stderr
        assert "install the distribution plugin-registry" in done.stderr
    assert "No such command 'nonsense'" in _run(alone, "nonsense").stderr
    done = _run(alone, "token", "list")
    assert done.returncode == 4
    assert "There is no token" in one_sentence(done.stderr)


def test_the_registry_brings_its_verbs_to_the_same_command(alone: Path, wheels: dict[str, Path]) -> None:
    install(wheels["plugin_registry"], alone)
    asked = f"from importlib.metadata import entry_points as found; print(*(e.name for e in found(group='{GROUP}')))"
    verbs = subprocess.run([alone / "bin/python", "-c", asked], capture_output=True, text=True, check=True).stdout
    assert {*verbs.split()} == {*OF_THE_REGISTRY, "token"}
    uninstall("plugin-registry", alone)
    assert _run(alone, "--help").returncode == 0, "no two wheels fight over files"


def test_both_have_one_version() -> None:
    def project(folder: Path) -> dict[str, object]:
        found: dict[str, object] = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
        return found

    ours, light_one = project(PROJECT), project(PROJECT / "client")
    assert ours["version"] == light_one["version"]
    assert f"plugin-registry-client=={light_one['version']}" in str(ours["dependencies"])


def test_a_verb_whose_extra_is_missing_says_so(alone: Path) -> None:
    done = _run(alone, "mcp")
    assert done.returncode == 2
    assert "pip install 'plugin-registry-client[mcp]'" in one_sentence(done.stderr)
