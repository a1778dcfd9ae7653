"""The shim one would write: FastAPI, SQLModel, one commit and one ``apply_async`` for each request.

And the job behind it: it reads the registration, does what every peer's job does, and marks it as registered.
"""

import os
from datetime import UTC, datetime

from celery import Celery
from fastapi import FastAPI
from pydantic import BaseModel
from sqlmodel import Field, Session, SQLModel

from bench.peers import job
from bench.peers.job import engine, engine_of


class Asked(BaseModel):
    name: str
    version: str
    pluginType: str  # noqa: N815  # the wire's name
    artifactUrl: str  # noqa: N815
    checksum: str
    configSchema: str = "{}"  # noqa: N815
    pluginRuntime: str = ""  # noqa: N815


class Registration(SQLModel, table=True):
    __tablename__ = "registrations"

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(index=True)
    version: str
    plugin_type: str
    url: str
    checksum: str = Field(index=True)
    config_schema: str
    runtime: str
    status: str = Field(default="queued", index=True)
    created_at: datetime


celery = Celery("shim", broker=os.environ["BENCH_BROKER_URL"])
celery.conf.task_ignore_result = True
celery.conf.worker_prefetch_multiplier = 64
app = FastAPI()
_first = engine_of(os.environ["BENCH_STORE_URL"])  # not the one that is used: Celery forks after this
SQLModel.metadata.create_all(_first)
_first.dispose()


@celery.task
def verify(registration_id: int) -> None:
    with Session(engine()) as session:
        registration = session.get(Registration, registration_id)
        assert registration is not None
        job.verify(registration.name, registration.url, registration.checksum)
        registration.status = "registered"
        session.add(registration)
        session.commit()


@app.post("/api/v1/plugins", status_code=202)
def register(asked: Asked) -> dict[str, object]:
    registration = Registration(
        name=asked.name,
        version=asked.version,
        plugin_type=asked.pluginType,
        url=asked.artifactUrl,
        checksum=asked.checksum,
        config_schema=asked.configSchema,
        runtime=asked.pluginRuntime,
        created_at=datetime.now(UTC),
    )
    with Session(engine()) as session:
        session.add(registration)
        session.commit()
        session.refresh(registration)
        assert registration.id is not None
        verify.apply_async((registration.id,))
        return {"id": registration.id, "status": registration.status, **asked.model_dump()}
