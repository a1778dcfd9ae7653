"""Api and workers behind a PgBouncer in transaction mode that has few connections for all of them."""

import pytest

from tests.faults.cluster import Cluster, Truth, all_at_once
from tests.pooler import pgbouncer
from tests.running import until

pytestmark = pytest.mark.program("pgbouncer")


def test_behind_a_pooler_every_submission_is_taken_and_every_token_known(cluster: Cluster, truth: Truth) -> None:
    with pgbouncer(cluster.database_url, "default_pool_size = 3") as through:
        url = through(cluster.database_url)
        cluster.stop("api", "worker-1", "worker-2")
        cluster.spawn_api(REGISTRY_DATABASE_URL=url)
        cluster.spawn_worker("worker-1", REGISTRY_DATABASE_URL=url)
        cluster.wait_for_api()
        cluster.wait_for_worker("worker-1")
        ids = all_at_once(cluster.client.accepted, truth.submissions(60), threads=12)
        waited = cluster.client.submit(truth.artifact()[0], prefer="wait=60")
        assert waited.status_code == 200, waited.text
        cluster.until_final()
        cluster.check(*ids)
        said = "nothing is told through this pooler, so the store is asked"
        until(lambda: cluster.events("api", said), what="word of it")
        cluster.stop("api", "worker-1")
