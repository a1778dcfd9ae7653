"""What the routes of one process work with. `api.main` builds it; a request finds it on its app."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from fastapi import Request

from api.http.limits import Throttle
from api.http.places import Caps
from api.http.proxies import Proxies
from api.live.feed import Feed
from api.live.following import Following
from api.live.monitor import Monitor
from api.live.outcomes import Outcomes
from api.live.submissions import Submissions
from api.live.threads import Threads
from api.live.token_lookup import TokenLookup
from shared.registration import RegistrationId
from shared.settings import Settings
from shared.store.acknowledgements import Acknowledgements
from shared.store.actions import Actions
from shared.store.catalogue import Catalogue
from shared.store.events import Events
from shared.store.keys import SigningKeys
from shared.store.registrations import Store
from shared.store.sessions import Sessions
from shared.store.tokens import Tokens
from shared.store.upstreams import Upstreams
from shared.store.webhooks import Webhooks


@dataclass(frozen=True, kw_only=True)
class Services:
    """The collaborators of the routes."""

    settings: Settings
    store: Store
    token_lookup: TokenLookup
    throttle: Throttle
    proxies: Proxies
    caps: Caps
    submissions: Submissions
    outcomes: Outcomes
    following: Following
    feed: Feed
    events: Events
    monitor: Monitor
    ring: Callable[[Sequence[RegistrationId]], None]
    sessions: Sessions
    tokens: Tokens
    actions: Actions
    upstreams: Upstreams
    catalogue: Catalogue
    acknowledgements: Acknowledgements
    webhooks: Webhooks
    keys: SigningKeys
    ask: Threads
    """Calls of the store, for what is asked for seldom."""
    ask_for_strangers: Threads
    """The same, one at a time, for those without a token: however many they are, they hold nobody else up."""
    ask_health: Threads
    """Looks whether the store is there: whoever asks that waits for nobody's list."""
    parse: Threads
    """Parses large bodies, one at a time."""
    check_store: Callable[[], None]
    """Raises where the store is away, or of another version."""

    def wake(self) -> None:
        """Have those look now who wait for something new in the store."""
        self.outcomes.wake()
        self.feed.wake()

    def leave(self) -> None:
        """Let everyone go who waits for something: this process is about to stop."""
        self.outcomes.leave()
        self.following.leave()
        self.feed.leave()
        self.monitor.leave()

    def close(self) -> None:
        """End the threads. Those that take in submissions and tokens are waited for, a second at most."""
        for each in (self.submissions, self.token_lookup, self.outcomes, self.following, self.feed):
            each.close()
        for threads in (self.ask, self.ask_for_strangers, self.ask_health, self.parse):
            threads.close()


async def services_of(request: Request) -> Services:
    """Return the services of the app that serves *request*; async, for what is not runs in another thread."""
    found = request.app.state.services
    assert isinstance(found, Services)  # noqa: S101  # narrows what Starlette types as Any
    return found
