"""The job that every peer queue is given: download, hash, compare, write the record.

Written the way it is usually written, with requests and SQLModel; no lease, no fence, no limits, no egress.
The commit is as durable as ours: SQLite in WAL with ``synchronous=FULL``, PostgreSQL as it comes.
"""

import hashlib
import os
from datetime import UTC, datetime
from functools import cache
from typing import Any

import requests
from sqlalchemy import Engine, event, make_url
from sqlmodel import Field, Session, SQLModel, create_engine


class Record(SQLModel, table=True):
    __tablename__ = "records"

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(index=True, unique=True)
    version: str
    url: str
    checksum: str = Field(index=True)
    size: int
    registered_at: datetime


def engine_of(url: str) -> Engine:
    """Return an engine, on SQLite with the settings that its documentation recommends for several writers."""
    if url.startswith("sqlite"):
        engine = create_engine(url, connect_args={"timeout": 60})

        @event.listens_for(engine, "connect")
        def _prepare(connection: Any, _record: Any) -> None:
            for pragma in ("journal_mode=WAL", "synchronous=FULL"):
                connection.execute(f"PRAGMA {pragma}")

        return engine
    return create_engine(make_url(url).set(drivername="postgresql+psycopg"), pool_size=10)


@cache
def engine() -> Engine:
    return engine_of(os.environ["BENCH_STORE_URL"])


def verify(name: str, url: str, checksum: str) -> None:
    sha256, size = hashlib.sha256(), 0
    with requests.get(url, stream=True, timeout=30) as response:
        response.raise_for_status()
        for chunk in response.iter_content(8192):
            sha256.update(chunk)
            size += len(chunk)
    if f"sha256:{sha256.hexdigest()}" != checksum:
        raise ValueError("the checksum differs")
    record = Record(
        name=name, version="1.0.0", url=url, checksum=checksum, size=size, registered_at=datetime.now(UTC)
    )
    with Session(engine()) as session:
        session.add(record)
        session.commit()
