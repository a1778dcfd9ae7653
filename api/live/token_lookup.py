"""Whose token is it? Requests that arrive together share one look at the store; nothing is kept between them."""

import asyncio

from fastapi.concurrency import run_in_threadpool

from shared.store.tokens import Token, Tokens


class TokenLookup:
    """Looks tokens up. While one look goes on, those that come meanwhile gather for the next."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens
        self._waiting: list[tuple[str, asyncio.Future[Token | None]]] = []
        self._looking: asyncio.Task[None] | None = None

    async def whose(self, text: str) -> Token | None:
        """Return the token that *text* proves now, if it does.

        Raises:
            StoreUnavailable: the store did not answer.
        """
        answer: asyncio.Future[Token | None] = asyncio.get_running_loop().create_future()
        self._waiting.append((text, answer))
        if self._looking is None:
            self._looking = asyncio.create_task(self._look())
        return await answer

    async def _look(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            try:
                found = await run_in_threadpool(self._tokens.authenticate_all, [text for text, _ in group])
            except Exception as error:  # noqa: BLE001  # each of the group is told; none may wait for ever
                for _, answer in group:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            for (_, answer), token in zip(group, found, strict=True):
                if not answer.done():  # its client may have gone
                    answer.set_result(token)
        self._looking = None
