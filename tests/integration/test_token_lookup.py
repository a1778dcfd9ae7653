"""Tokens that are looked up together: each request gets its own answer, or hears that there is none."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from api.live.token_lookup import TokenLookup
from shared.errors import StoreUnavailable
from shared.store.database import Database
from shared.store.tokens import Token, Tokens, mint
from tests.running import PATIENCE_S
from tests.stores import a_store


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with a_store("sqlite", tmp_path, "") as database:
        yield database


class Slow(Tokens):
    """Takes its time over the first look, and counts."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.groups: list[int] = []
        self.go = threading.Event()
        self.error: Exception | None = None

    def authenticate_all(self, texts: Sequence[str]) -> "list[Token | None]":
        self.groups.append(len(texts))
        assert self.go.wait(PATIENCE_S)
        if self.error is not None:
            raise self.error
        return super().authenticate_all(texts)


async def ask(token_lookup: TokenLookup, tokens: Slow, texts: Sequence[str]) -> "list[Token | BaseException | None]":
    first = asyncio.create_task(token_lookup.whose(texts[0]))
    while not tokens.groups:
        await asyncio.sleep(0.01)
    rest = [asyncio.create_task(token_lookup.whose(text)) for text in texts[1:]]
    await asyncio.sleep(0.01)
    tokens.go.set()
    return await asyncio.gather(first, *rest, return_exceptions=True)


def test_those_that_come_while_one_look_goes_on_share_the_next_and_each_gets_its_own(database: Database) -> None:
    tokens = Slow(database)
    made = [tokens.create(f"token {n}", ["read"]) for n in range(4)]
    tokens.revoke(made[2].id)
    first, second, revoked, fourth = (each.text for each in made)
    asked = [first, second, revoked, mint().text, fourth, second, "no token at all"]
    found = asyncio.run(ask(TokenLookup(tokens), tokens, asked))
    labels = [each.label if isinstance(each, Token) else each for each in found]
    assert labels == ["token 0", "token 1", None, None, "token 3", "token 1", None]
    assert tokens.groups == [1, 5], "and each token is looked up once"


def test_all_hear_that_the_store_is_away_and_the_next_is_looked_up_again(database: Database) -> None:
    tokens = Slow(database)
    made = tokens.create("mine", ["read"])
    tokens.error = StoreUnavailable("It is away.")

    async def both() -> "Token | None":
        token_lookup = TokenLookup(tokens)
        found = await ask(token_lookup, tokens, [made.text] * 3)
        assert [type(each) for each in found] == [StoreUnavailable] * 3
        tokens.error = None
        return await token_lookup.whose(made.text)

    found = asyncio.run(both())
    assert found is not None
    assert found.label == "mine"
