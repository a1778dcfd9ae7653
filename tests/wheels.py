"""Our wheels, built and installed by uv, which every development environment has, made by it or not."""

import subprocess
import sys
from pathlib import Path

_UV = [sys.executable, "-m", "uv"]


def built(project: Path, folder: Path) -> Path:
    """Build the wheel of *project* into *folder*; return it."""
    before = set(folder.glob("*.whl"))
    _uv(
        "build", "--wheel", "--no-build-isolation", "--offline", "-p", sys.executable, "-o", str(folder), str(project)
    )
    (wheel,) = set(folder.glob("*.whl")) - before
    return wheel


def install(wheel: Path, environment: Path) -> None:
    """Install *wheel*, and nothing that it needs, into a virtual environment."""
    _uv("pip", "install", "--no-deps", "--offline", "-p", str(environment / "bin/python"), str(wheel))


def uninstall(name: str, environment: Path) -> None:
    """Take a distribution out of a virtual environment."""
    _uv("pip", "uninstall", "-p", str(environment / "bin/python"), name)


def _uv(*words: str) -> None:
    done = subprocess.run([*_UV, "--quiet", *words], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
