"""Which versions of whom were measured."""

import shutil
import subprocess

from bench.stand import PROJECT

NAMED = (
    "celery",
    "dramatiq",
    "fastapi",
    "huey",
    "pooch",
    "requests",
    "rq",
    "sqlmodel",
    "taskiq",
    "taskiq-redis",
    "uvicorn",
)
TOLD_BY = {"curl": ("curl", "--version"), "openssl": ("openssl", "version"), "sha256sum": ("sha256sum", "--version")}


def versions() -> str:
    """Return one line that names them."""
    locked = dict(
        line.split(" ")[0].split("==")
        for line in (PROJECT / "bench" / "requirements.lock").read_text().splitlines()
        if "==" in line
    )
    told = [f"{name} {locked[name]}" for name in NAMED]
    for name, command in TOLD_BY.items():
        if shutil.which(name):
            said = subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines()[0]
            told.append(said.split(" (")[0] if name in said.lower() else f"{name}: {said}")
    return ", ".join(told) + "."
