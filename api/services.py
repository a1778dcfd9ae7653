"""What the routes of one process work with. `api.main` builds it; a request finds it on its app."""

from dataclasses import dataclass

from fastapi import Request

from api.intake import Intake
from api.throttle import Throttle
from api.watch import Outcomes
from shared.settings import Settings
from shared.store import Store
from shared.tokens import Tokens


@dataclass(frozen=True)
class Services:
    """The collaborators of the routes."""

    settings: Settings
    store: Store
    tokens: Tokens
    throttle: Throttle
    intake: Intake
    outcomes: Outcomes


def services(request: Request) -> Services:
    """Return the services of the app that serves *request*."""
    found = request.app.state.services
    assert isinstance(found, Services)  # noqa: S101  # narrows what Starlette types as Any
    return found
