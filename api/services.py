"""What the routes of one process work with. `api.main` builds it; a request finds it on its app."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from anyio import CapacityLimiter
from fastapi import Request

from api.http.limits import Throttle
from api.http.places import Caps
from api.http.proxies import Proxies
from api.live.following import Following
from api.live.monitor import Sight
from api.live.outcomes import Outcomes
from api.live.submissions import Intake
from api.live.token_lookup import Callers
from shared.registration import RegistrationId
from shared.settings import Settings
from shared.store.registrations import Store
from shared.store.sessions import Sessions


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
