"""Which tests run in one process, where several run the suite (pytest-xdist): those that share what is started once.

A file is one scope, and so are all that use one running registry, or one cluster. What takes longest begins first.
By files, because who hands tests out knows no more of them than their names.
"""

from typing import Any

from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

REGISTRY, CLUSTER = "one registry", "one cluster"
_TOGETHER = {
    REGISTRY: (
        *(
            "browser",
            "ci",
            "command",
            "contract",
            "costly_submissions",
            "documentation",
            "edge",
            "guides",
            "host",
            "limited_tokens",
        ),
        *(
            "many",
            "mcp",
            "methods",
            "on_call",
            "operations",
            "page",
            "pages",
            "python_client",
            "schema",
            "token_routes",
        ),
    ),
    CLUSTER: (
        *("backlog", "broker", "hanging_store", "hosts", "monitor", "pgbouncer", "refusals", "roles", "rolling"),
    ),
}
_SCOPES = {f"test_{name}.py": scope for scope, names in _TOGETHER.items() for name in names}
FIRST = (
    CLUSTER,
    REGISTRY,
    "tests/integration/test_hostile_servers.py",
    "tests/faults/test_workers.py",
    "tests/e2e/test_limits.py",
    "tests/e2e/test_running.py",
    "tests/faults/test_machine.py",
    "tests/faults/test_store.py",
    "tests/e2e/test_liveness.py",
    "tests/e2e/test_backup.py",
    "tests/integration/test_upstreams.py",
    "tests/integration/test_terminal.py",
    "tests/integration/test_queue.py",
    "tests/integration/test_lanes.py",
    "tests/integration/test_resume.py",
    "tests/faults/test_services.py",
    "tests/faults/test_sentinel.py",
)


def scope_of(nodeid: str) -> str:
    """Return what tests share that may not run apart from the one called *nodeid*."""
    file = nodeid.split("::", maxsplit=1)[0]
    return _SCOPES.get(file.rpartition("/")[2], file)


def rank_of(nodeid: str) -> int:
    """Return when a test's scope begins."""
    scope = scope_of(nodeid)
    return FIRST.index(scope) if scope in FIRST else len(FIRST)


class ByScope(LoadScopeScheduling):  # type: ignore[misc]  # it has no types
    """Hands out scopes, in the order in which their tests were collected."""

    def __init__(self, config: Any, log: Any) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)
