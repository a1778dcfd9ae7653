"""The locks are complete, so that whoever installs one needs no resolver, and nobody runs one."""

import re

import pytest

from tests.running import PROJECT

BESIDE = ("requirements-build.lock", "requirements-dev.lock", "requirements-ops.lock", "requirements-otel.lock")
LOCKS = ("requirements.lock", *BESIDE, "bench/requirements.lock")


def pinned(lock: str) -> dict[str, set[str]]:
    """Return the pins of *lock*, each with the markers under which it counts, by package."""
    found: dict[str, set[str]] = {}
    for pin in re.findall(r"^[^ \n].*?(?= \\\n)", (PROJECT / lock).read_text(), re.MULTILINE):
        found.setdefault(pin.partition("==")[0], set()).add(pin)
    return found


def versions(pins: set[str]) -> set[str]:
    return {each.partition(" ;")[0] for each in pins}


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_pins_every_package_to_a_version_and_its_hashes_and_names_no_host(lock: str) -> None:
    text = (PROJECT / lock).read_text()
    assert "://" not in text
    packages = re.split(r"\n(?! )", text.rstrip("\n"))
    for each in packages:
        assert re.fullmatch(r"[a-z0-9-]+==\S+( ; [^\n]+)? \\\n(    --hash=sha256:[0-9a-f]{64}( \\)?\n?)+", each), each


@pytest.mark.parametrize("lock", BESIDE)
def test_a_lock_that_is_installed_beside_the_runtimes_changes_none_of_its_packages(lock: str) -> None:
    runtime, beside = pinned("requirements.lock"), pinned(lock)
    shared = runtime.keys() & beside.keys()
    assert shared
    # A marker may be written longer where more than one package asks for it.
    assert {name: versions(beside[name]) for name in shared} == {name: versions(runtime[name]) for name in shared}


@pytest.mark.parametrize("file", ["Makefile", "Dockerfile"])
def test_no_set_up_runs_a_resolver(file: str) -> None:
    commands = re.sub(r"^#.*\n|\\\n", "", (PROJECT / file).read_text(), flags=re.MULTILINE)
    installs = re.findall(r"(?:call pip,\S+,|\bpip .*)install\b[^&\n]*", commands)
    assert installs
    assert all("--no-deps" in each for each in installs), installs
    assert re.search(r"--require-hashes -r (requirements\.lock|\$\{LOCK\})", commands)
