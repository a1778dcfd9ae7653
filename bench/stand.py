"""What every bench is given: its size, the artifacts, a folder, and how to run things."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.artifacts import Artifacts

PROJECT = Path(__file__).parent.parent
PEERS_PYTHON = PROJECT / ".venv-bench" / "bin" / "python"


@dataclass(frozen=True)
class Served:
    """A module of ours that runs and answers lines."""

    process: "subprocess.Popen[str]"

    def __call__(self, line: str) -> Any:
        """Send *line*, and return the answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


@dataclass(frozen=True)
class Stand:
    """Where a bench runs, and how big it is."""

    quick: bool
    folder: Path
    artifacts: Artifacts
    lacking: frozenset[str]
    """Commands that this machine does not have."""

    def environment(self, **more: str) -> dict[str, str]:
        """Return our environment without any setting of the registry's, what lets it fetch here, and *more*."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("REGISTRY_")}
        return {**kept, "PYTHONPATH": str(PROJECT), **self.artifacts.settings(), **more}

    def ours(self, module: str, *arguments: object, **settings: str) -> Any:
        """Run a module of ours to its end, and return what it printed last, as JSON."""
        return _answer([sys.executable, "-m", module, *map(str, arguments)], self.environment(**settings))

    @contextmanager
    def serving(self, module: str, *arguments: object) -> Iterator[Served]:
        """Run a module of ours for the length of the block; yield what sends it a line and returns its answer."""
        process = subprocess.Popen(
            [sys.executable, "-m", module, *map(str, arguments)],
            env=self.environment(),
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        try:
            yield Served(process)
        finally:
            process.kill()
            process.communicate()

    def peer(self, module: str, *arguments: object, env: Mapping[str, str] | None = None) -> Any:
        """Run a module in the peers' environment, as `ours` does."""
        return _answer([str(PEERS_PYTHON), "-m", module, *map(str, arguments)], self.environment(**(env or {})))


def _answer(command: list[str], environment: dict[str, str]) -> Any:
    done = subprocess.run(command, env=environment, cwd=PROJECT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])
