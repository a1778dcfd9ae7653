# ruff: noqa: INP001, S603
"""What the compose demo needs, looked at before it starts: an engine, its compose, images that offer enough."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

# The oldest that read compose.yaml as it is meant: `required` in depends_on; `:+`, and a default within a default.
OLDEST_COMPOSE = {"docker": (2, 20, 2), "podman": (1, 6, 0)}

# What runs in each image, and what shows that it has what compose.yaml asks of it.
IMAGES = {
    "PYTHON_IMAGE": (
        "python:3.13-slim",
        "Python 3.11 or later with venv and pip",
        "import sys, ensurepip, pip, venv; sys.exit(sys.version_info < (3, 11))",
    ),
    "POSTGRES_IMAGE": (
        "postgres:17-alpine",
        "PostgreSQL 13 to 17, a user postgres, and the official image's entrypoint",
        "id postgres && command -v docker-entrypoint.sh initdb pg_isready psql && ls /docker-entrypoint-initdb.d",
    ),
    "VALKEY_IMAGE": (
        "valkey/valkey:9-alpine",
        "valkey-server, valkey-cli and a user valkey",
        "id valkey && command -v valkey-server valkey-cli",
    ),
    "EDGE_IMAGE": ("caddy:2-alpine", "Caddy 2.6 or later, and wget", "caddy version && command -v wget"),
}


def find_engine() -> tuple[str, list[str]]:
    """Return the engine and the words that run its compose; end with all that is missing, a sentence each."""
    if _works("docker", "info"):
        engine, compose = "docker", ["docker", "compose"]
    else:
        engine, compose = "podman", ["podman-compose", "--in-pod", "false"]
    if missing := [*_missing_of_engine(engine), *_missing_besides()]:
        sys.exit("\n".join(missing))
    return engine, compose


def _missing_of_engine(engine: str) -> Iterator[str]:
    if not _works(engine, "info"):
        yield "It needs a Docker engine with Compose, or podman with podman-compose: neither answers here."
        return
    name, *version = (
        ("Docker Compose", "docker", "compose", "version")
        if engine == "docker"
        else ("podman-compose", "podman-compose", "--version")
    )
    oldest = ".".join(map(str, OLDEST_COMPOSE[engine]))
    found = re.search(r"compose\w*\s+(?:version:?\s+)?v?(\d+)\.(\d+)\.(\d+)", _answer(*version), re.IGNORECASE)
    if found is None:
        yield f"It needs {name} {oldest} or later, which does not answer here."
    elif tuple(map(int, found.groups())) < OLDEST_COMPOSE[engine]:
        yield f"It needs {name} {oldest} or later: {'.'.join(found.groups())}, which is here, misreads compose.yaml."
    if engine == "podman":
        yield from _missing_of_podman()
    yield from _missing_of_images(engine)


def _missing_of_podman() -> Iterator[str]:
    probe = f"plugin-registry-probe-{os.getpid()}"
    _answer("podman", "network", "create", probe)
    names = _answer("podman", "network", "inspect", "--format", "{{.DNSEnabled}}", probe).strip()
    _answer("podman", "network", "rm", probe)
    if names != "true":
        yield "podman's networks give containers no names here: install netavark and aardvark-dns."
    if not any((Path(folder) / "catatonit").exists() for folder in (*os.get_exec_path(), "/usr/libexec/podman")):
        yield "podman has no init here that could be PID 1: install catatonit."


def _missing_besides() -> Iterator[str]:
    if shutil.which("openssl") is None:
        yield "It needs openssl, to make a certificate for the edge."
    certificates = os.environ.get("PIP_CERT")
    if certificates and not os.access(certificates, os.R_OK):
        yield f"PIP_CERT={certificates} cannot be read: it holds whom to trust while the image is built."


def _missing_of_images(engine: str) -> Iterator[str]:
    for variable, (default, what, shows) in IMAGES.items():
        image = os.environ.get(variable) or default
        program = ["python3", "-c"] if variable == "PYTHON_IMAGE" else ["sh", "-c"]
        command = [engine, "run", "--rm", "--entrypoint", program[0], image, *program[1:], shows]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        said = done.stderr.strip().splitlines()
        if done.returncode >= 125 and said and said[-1].startswith(("Error", "docker")):  # the engine, not the image
            yield f"{variable}={image} cannot be run: {said[-1]}"
        elif done.returncode:
            yield f"{variable}={image} has not what it must offer: {what}."


def _answer(*command: str) -> str:
    """Return what *command* prints, whatever its end; nothing where it is not there."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout + done.stderr


def _works(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
