"""Calls that several threads want at the same time, made as one: what group commit is to transactions."""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

from shared.errors import RegistryError

Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class Grouped(Generic[Asked, Answer]):
    """Makes *call* for all who wait. While one group is answered the next gathers; nobody waits for company.

    *call* takes what is asked for, the first to ask first, and returns an answer to each. If it raises a
    `RegistryError`, each of the group is told. After anything else each makes it for itself, so that one takes no
    other along.
    """

    def __init__(self, call: Callable[[Sequence[Asked]], Sequence[Answer]]) -> None:
        self._call = call
        self._waiting: deque[tuple[Asked, Future[Answer]]] = deque()
        self._turn = threading.Lock()

    def __call__(self, asked: Asked) -> Answer:
        """Return the answer to *asked*, or raise what was raised."""
        mine: Future[Answer] = Future()
        self._waiting.append((asked, mine))
        with self._turn:
            if not mine.done():  # nobody who waited before made the call for us too: so we make it for all
                self._answer([self._waiting.popleft() for _ in range(len(self._waiting))])
        try:
            return mine.result()
        except _ByOneself:
            pass
        (answer,) = self._call([asked])
        return answer

    def _answer(self, group: Sequence[tuple[Asked, Future[Answer]]]) -> None:
        try:
            answered = list(zip(group, self._call([asked for asked, _ in group]), strict=True))
        except BaseException as error:  # noqa: BLE001  # each of the group is told; none may wait for ever
            to_each = isinstance(error, RegistryError) or not isinstance(error, Exception) or len(group) == 1
            for _, theirs in group:
                theirs.set_exception(error if to_each else _ByOneself())
        else:
            for (_, theirs), answer in answered:
                theirs.set_result(answer)


class _ByOneself(Exception):
    """The call cannot be made for the group as a whole."""
