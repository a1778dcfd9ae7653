"""Why a broker is away, of what its clients raise: its own word, in one line, with no secret in it."""

import pytest
from amqp.exceptions import AccessRefused, MessageNacked, NotAllowed, RecoverableConnectionError
from kombu.exceptions import OperationalError
from redis import exceptions as redis
from redis.exceptions import BusyLoadingError, ReadOnlyError, ResponseError

from shared.broker import MAX_CHARACTERS, Alarm, Reason, reason_of


def wrapped(error: Exception) -> Exception:
    """Return *error* as kombu passes it on."""
    outer = OperationalError(str(error))
    outer.__cause__ = error
    return outer


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            ReadOnlyError("You can't write against a read only replica.", status_code="READONLY"),
            Reason("READONLY You can't write against a read only replica", "READONLY"),
        ),
        (
            BusyLoadingError("Redis is loading the dataset in memory", status_code="LOADING"),
            Reason("LOADING Redis is loading the dataset in memory", "LOADING"),
        ),
        (
            ResponseError("MISCONF Errors writing to the AOF file: No space left on device"),
            Reason("MISCONF Errors writing to the AOF file: No space left on device", "MISCONF"),
        ),
        (ResponseError("max number of things"), Reason("max number of things", "ERR")),
        (
            ReadOnlyError("Command # 1 (LPUSH q {}) of pipeline caused error: no (really)", status_code="READONLY"),
            Reason("READONLY no (really)", "READONLY"),
        ),
        (
            ResponseError("unknown command `HELLO`, with args beginning with: `3` `AUTH` `default` `S3CRET`"),
            Reason("unknown command `HELLO`", "ERR"),
        ),
        (
            NotAllowed("NOT_ALLOWED - vhost gone not found", (10, 40), reply_code=530),
            Reason("NOT_ALLOWED - vhost gone not found", "NOT_ALLOWED"),
        ),
        (
            AccessRefused("ACCESS_REFUSED - access to exchange 'x' refused for user 'u'", (60, 40), reply_code=403),
            Reason("ACCESS_REFUSED - access to exchange 'x' refused for user 'u'", "ACCESS_REFUSED"),
        ),
        (Alarm("low on memory"), Reason("BLOCKED low on memory", "BLOCKED")),
        (MessageNacked(), Reason("NACK for a message", "NACK")),
        (RecoverableConnectionError("connection already closed"), Reason("connection already closed")),
        (redis.TimeoutError("Timeout reading from socket"), Reason("Timeout reading from socket")),
        (ConnectionRefusedError(111, "Connection refused"), Reason("[Errno 111] Connection refused")),
        (OSError(), Reason("OSError")),
    ],
)
def test_the_reason_is_the_brokers_own_word_however_it_came(error: Exception, reason: Reason) -> None:
    assert reason_of(error) == reason
    assert reason_of(wrapped(error)).word == reason.word


def test_a_reason_is_one_line_of_bounded_length_and_shows_what_is_hidden() -> None:
    text = reason_of(ResponseError("BAD\r\nline\x1b[31m " + "x" * 1000)).text
    assert text.startswith(r"BAD line\x1b[31m ")
    assert len(text) <= MAX_CHARACTERS


def test_a_url_in_a_reason_has_no_userinfo() -> None:
    assert reason_of(OSError("cannot reach redis://user:S3CRET@host:1/0?password=S3CRET")).text == (
        "cannot reach redis://host:1/0"
    )
