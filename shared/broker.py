"""Why a broker is away: what it replied, or that it did not, in one line that holds no secret.

Whatever it replies instead of taking a message means that it is away, and that what was meant for it waits: READONLY
(a replica), OOM, LOADING, MISCONF, MASTERDOWN, UNBLOCKED, NOAUTH of Redis; ACCESS_REFUSED, NOT_ALLOWED, an alarm of
RabbitMQ's. Only who looks at it is helped by the difference.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from amqp.exceptions import AMQPError, MessageNacked, RecoverableConnectionError
from amqp.method_framing import frame_handler
from amqp.serialization import loads
from amqp.spec import Connection
from kombu.exceptions import KombuError
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from shared.characters import visible
from shared.logs import scrub

BROKER_ERRORS = (KombuError, AMQPError, MessageNacked, RedisError, OSError)
"""What the clients of brokers raise, whatever the broker is."""
MAX_CHARACTERS = 200
_WORD = re.compile(r"[A-Z][A-Z_]{2,}")


@dataclass(frozen=True)
class Reason:
    """Why a broker is away. *word* is what its reply begins with; None where it did not reply."""

    text: str
    word: str | None = None

    @property
    def sentence(self) -> str:
        """What it does, and why, without a full stop."""
        return f"The broker {'does not answer' if self.word is None else 'refuses writes'}: {self.text}"


class Alarm(RecoverableConnectionError):
    """RabbitMQ takes no message: its memory or its disk is used up."""


SILENCE = Reason("nothing came in time")


def reason_of(error: BaseException) -> Reason:
    """Return why the broker is away by *error*, which a client of it raised."""
    for each in _chain(error):
        if (reply := _reply(each)) is not None:
            shown = _shown(reply)
            word = _WORD.match(shown)
            return Reason(shown, word[0] if word else "ERR")
    return Reason(_shown(str(error) or type(error).__name__))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield *error* and what it was made of: kombu wraps what it met."""
    while error is not None:
        yield error
        error = error.__cause__


def _reply(error: BaseException) -> str | None:
    """Return what the broker said, if that is what *error* is about."""
    if isinstance(error, Alarm):
        return f"BLOCKED {error.reply_text}"
    if isinstance(error, MessageNacked):
        return "NACK for a message"
    if isinstance(error, AMQPError) and error.reply_code and _WORD.match(error.reply_text or ""):
        return str(error.reply_text)
    code = getattr(error, "status_code", None)
    if isinstance(error, RedisError) and (code or isinstance(error, ResponseError | AuthenticationError)):
        return f"{code} {_shown(str(error))}" if code else str(error)
    return None


def _shown(text: str) -> str:
    """Return *text* without what it quotes: Redis what it does not know, be it a password; its client any command."""
    if text.startswith("Command # "):
        text = text.rpartition(" of pipeline caused error: ")[2]
    line = " ".join(text.partition(" with args beginning with:")[0].rstrip(",").split())
    return visible(scrub(line))[:MAX_CHARACTERS].rstrip(" .")


class TellingWhenBlocked:
    """A frame handler for py-amqp: who publishes while RabbitMQ has an alarm hears why at once, not after a time-out.

    RabbitMQ says it in `connection.blocked`, an extension; py-amqp itself drops its reason.
    """

    def __call__(self, connection: Any, callback: Callable[..., object]) -> Any:
        """Return what is called with each frame."""

        def on_method(channel: int, method: tuple[int, int], payload: Any, content: Any) -> None:
            if method == Connection.Blocked:
                raise Alarm(loads("s", payload, 4)[0][0])
            callback(channel, method, payload, content)

        return frame_handler(connection, on_method)

    def __repr__(self) -> str:
        return "telling when blocked"

    def __json__(self) -> str:  # Celery's `inspect stats` tells all options of a transport
        return repr(self)
