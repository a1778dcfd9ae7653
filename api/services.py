"""What the routes of one process work with. `api.main` builds it; a request finds it on its app."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from anyio import CapacityLimiter
from fastapi import Request

from api.callers import Callers
from api.following import Following
from api.intake import Intake
from api.places import Caps
from api.proxies import Proxies
from api.sight import Sight
from api.throttle import Throttle
from api.watch import Outcomes
from shared.registration import RegistrationId
from shared.sessions import Sessions
from shared.settings import Settings
from shared.store import Store


@dataclass(frozen=True)
class Services:
    """The collaborators of the routes."""

    settings: Settings
    store: Store
    callers: Callers
    throttle: Throttle
    proxies: Proxies
    caps: Caps
    intake: Intake
    outcomes: Outcomes
    following: Following
    sight: Sight
    ring: Callable[[Sequence[RegistrationId]], None]
    sessions: Sessions
    parsing: CapacityLimiter
    """Who may parse a large body: one at a time."""

    def leave(self) -> None:
        """Let everyone go who waits for something: this process is about to stop."""
        self.outcomes.leave()
        self.following.leave()
        self.sight.leave()


async def services(request: Request) -> Services:
    """Return the services of the app that serves *request*; async, for what is not runs in another thread."""
    found = request.app.state.services
    assert isinstance(found, Services)  # noqa: S101  # narrows what Starlette types as Any
    return found
