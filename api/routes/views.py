"""How values become answers: camelCase JSON."""

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel
from starlette.responses import Response


class View(BaseModel):
    """What an answer is made of; its names are the wire's in camelCase."""

    model_config = ConfigDict(
        alias_generator=to_camel, validate_by_name=True, serialize_by_alias=True, from_attributes=True
    )


def as_json(value: BaseModel, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return *value* in its wire form."""
    return Response(value.model_dump_json(by_alias=True), status, headers=headers, media_type="application/json")
