"""Submissions that are small to send and dear to look at, many at once: everybody else is served."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.conftest import a_submission
from tests.costly_schemas import COSTLY
from tests.running import Registry

CLIENTS = 32
CPU_S_EACH = 0.5
"""Of the api, and more than ten times what the worst of them needs; one that is compiled takes minutes."""
GROWTH_BYTES = 200 * 2**20


def test_the_worst_schemas_from_many_clients_cost_the_api_little_and_hold_up_nobody(registry: Registry) -> None:
    api = registry.child("api.main")
    texts = [json.dumps(schema) for schema in COSTLY.values()]
    assert registry.get("/healthz").status_code == 200
    before, size = sum(api.cpu_times()[:2]), api.memory_info().rss

    def submit(text: str) -> int:
        return registry.register(a_submission(configSchema=text), prefer="respond-async").status_code

    with ThreadPoolExecutor(CLIENTS + 1) as clients:
        submitted = [clients.submit(submit, text) for text in texts]
        health = clients.submit(lambda: [registry.get("/healthz").status_code for _ in range(20)])
        answers = {each.result() for each in submitted}
        assert set(health.result()) == {200}
    assert answers <= {202, 413, 422}
    assert 422 in answers
    assert sum(api.cpu_times()[:2]) - before < CPU_S_EACH * len(texts)
    assert api.memory_info().rss - size < GROWTH_BYTES


def test_a_token_for_other_names_has_nothing_of_a_submission_looked_at(registry: Registry) -> None:
    made = registry.cli(
        "token",
        "create",
        "--scope",
        "register",
        "--names",
        "team-b-*",
        "--label",
        "b",
        "--state",
        str(registry.state),
    )
    token = made.stdout.strip().splitlines()[-1]
    answer = registry.register(
        {"name": "team-a-plugin", "configSchema": "no schema", "version": "no version"}, token=token
    )
    assert answer.status_code == 403, answer.text
    documents: list[Any] = [{"name": "team-a-plugin"}, {"name": 5}, {"name": "team-b-" + "x" * 100}, {}, []]
    for document in documents:
        for query in ({"dryRun": "true"}, {"dryRun": "nonsense"}):
            answer = registry.register(document, token=token, params=query)
            assert answer.status_code == 403, answer.text
