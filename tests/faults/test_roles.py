"""Api and worker as a role that may read and write what is in the tables, and no more; beat without a store."""

import psycopg
import pytest
from sqlalchemy import make_url

from shared.store.database import open_database
from shared.store.schema import grant
from tests.faults.cluster import Cluster, Truth
from tests.running import until

ROLE = "serves_in_tests"


@pytest.mark.faults_long
def test_everything_works_with_the_least_rights(cluster: Cluster, truth: Truth) -> None:
    with psycopg.connect(cluster.database_url, autocommit=True) as server:
        server.execute(f"CREATE ROLE {ROLE} LOGIN")
        try:
            database = open_database(cluster.database_url)
            grant(database, ROLE)
            database.close()
            url = make_url(cluster.database_url).set(username=ROLE).render_as_string(hide_password=False)
            cluster.stop("api", "worker-1", "worker-2", "beat")
            cluster.spawn_api(REGISTRY_DATABASE_URL=url)
            cluster.spawn_worker("worker-1", REGISTRY_DATABASE_URL=url)
            cluster.spawn_beat(REGISTRY_DATABASE_URL="")
            cluster.wait_for_api()
            cluster.wait_for_worker("worker-1")
            ids = [cluster.client.accepted(each) for each in truth.submissions(5)]
            cluster.until_final()
            cluster.check(*ids)
            cluster.flush()  # what is due now only the sweep rings for
            cluster.suspend("worker-1")
            late = cluster.client.accepted(truth.artifact()[0])
            cluster.flush()
            cluster.resume("worker-1")
            until(lambda: cluster.client.look(late)["status"] == "registered", what="a sweep that beat had rung for")
            with psycopg.connect(url, autocommit=True) as connection:
                for refused in ("COPY tokens (id) FROM PROGRAM 'id'", "DROP TABLE tokens"):
                    with pytest.raises(psycopg.errors.InsufficientPrivilege):
                        connection.execute(refused)
            cluster.stop("api", "worker-1", "beat")
        finally:
            server.execute(f"DROP OWNED BY {ROLE}; DROP ROLE {ROLE}")
