"""Whose token is it? Requests that arrive together share one look at the store; nothing is kept between them."""

from collections.abc import Sequence

from api.live.in_time import ASKED_WITHIN_S, in_time
from shared.store.batcher import Batcher
from shared.store.tokens import Token, Tokens


class TokenLookup:
    """Looks tokens up. While one look goes on, those that come meanwhile gather for the next."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._batcher = Batcher(self._look, name="tokens")

    async def whose(self, text: str) -> Token | None:
        """Return the token that *text* proves now, if it does.

        Raises:
            StoreUnavailable: the store did not answer.
        """
        return await in_time(self._batcher.ask(text), ASKED_WITHIN_S)

    def close(self) -> None:
        """Look no more up."""
        self._batcher.close(within_s=1)

    def _look(self, texts: Sequence[str]) -> Sequence[Token | None]:
        """Look each up once, however many show it."""
        distinct = list(dict.fromkeys(texts))
        found = dict(zip(distinct, self._tokens.authenticate_all(distinct), strict=True))
        return [found[text] for text in texts]
