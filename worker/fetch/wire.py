"""A connected socket that never blocks, with TLS over it if it is asked for. The loop and the lanes share it.

TLS is OpenSSL's, fed from memory with what the socket held. What does not wait is the same for both; where it would
have to, a task awaits the socket and a lane polls it.
"""

import asyncio
import select
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress

from shared.errors import BadResponse

RAW_BYTES = 256 * 1024
"""How much of a TLS stream a lane reads from the socket at a time."""
LOOP_RAW_BYTES = 32 * 1024
"""And the loop: records without content take their time, in which all others wait."""
MAX_EXCESS_BYTES = 512 * 1024
"""How much there may be of TLS beyond twice its content: handshake, tickets, what frames tiny records."""
SILENT_AFTER = 4
"""A kept connection on which TLS speaks more often than this is not kept."""
NOTHING = -1
"""TLS spoke, and said nothing that is content."""


class Wire:
    """One connection of *sock*, which is connected and does not block."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._tls: ssl.SSLObject | None = None
        self._arrived, self._leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._raw_bytes = self._content_bytes = 0

    @property
    def peer(self) -> str:
        """The address at the other end."""
        return str(self._sock.getpeername()[0])

    def close(self) -> None:
        """Close the connection."""
        self._sock.close()

    def shut(self) -> None:
        """End the connection for whoever is in the middle of reading it."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return  # it was closed already, which is what we want

    def acknowledge_at_once(self) -> None:
        """Have the next segment acknowledged when it comes.

        A server that sends head and body apart waits for that, under Nagle, on a connection that was kept: 40 ms.
        """
        if hasattr(socket, "TCP_QUICKACK"):
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    # --- without waiting ------------------------------------------------------------------------

    def take(self, into: memoryview, raw: bytearray) -> int | None:
        """Read what has arrived *into* a buffer; return how much, 0 at the end, None if nothing has, or `NOTHING`.

        *raw* is where a TLS stream passes through; it holds nothing afterwards. However much has arrived, no more of
        it than that is looked at.

        Raises:
            BadResponse: TLS has framed far more than it held.
            OSError: the connection broke, or its TLS did.
        """
        if self._tls is None:
            try:
                return self._sock.recv_into(into)
            except BlockingIOError:
                return None
        count = self._take_content(self._tls, into)
        if count == NOTHING:
            if not self._take_raw(raw):
                return None
            count = self._take_content(self._tls, into)
        self._content_bytes += max(0, count)
        return count

    def _take_content(self, tls: ssl.SSLObject, into: memoryview) -> int:
        try:
            return tls.read(len(into), into)  # type: ignore[return-value]  # a count, with a buffer
        except ssl.SSLWantReadError:
            return NOTHING
        except ssl.SSLZeroReturnError:
            return 0
        except ssl.SSLError as error:
            if (
                error.reason == "UNEXPECTED_EOF_WHILE_READING"
            ):  # some versions of Python call it by no class of its own
                raise ssl.SSLEOFError(*error.args) from error
            raise
        finally:
            if self._leaving.pending:
                self._answer_at_once()

    def _take_raw(self, raw: bytearray) -> bool:
        """Read some of the TLS stream; return whether any has arrived. Its end is seen by what reads it."""
        try:
            count = self._sock.recv_into(raw)
        except BlockingIOError:
            return False
        self._raw_bytes += count
        if self._raw_bytes > 2 * self._content_bytes + MAX_EXCESS_BYTES:
            raise BadResponse("The artifact's host sends TLS that holds next to nothing.", cause="tiny-records")
        if count:
            self._arrived.write(memoryview(raw)[:count])
        else:
            self._arrived.write_eof()
        return True

    def _answer_at_once(self) -> None:
        """Send what TLS itself wants to say, which is a few bytes and seldom."""
        said = self._leaving.read()
        try:
            sent = self._sock.send(said)
        except BlockingIOError:
            sent = 0
        if sent < len(said):
            raise ConnectionError("it does not listen")

    def is_silent(self, raw: bytearray) -> bool:
        """Return whether the other side is there and has said nothing. What it said may be missing later."""
        try:
            if self._tls is None:
                self._sock.recv(1, socket.MSG_PEEK)
                return False
            for _ in range(SILENT_AFTER):  # what TLS says about itself is read by this
                if (count := self.take(memoryview(bytearray(1)), raw)) != NOTHING:
                    return count is None
        except BlockingIOError:
            return True
        except (OSError, BadResponse):
            return False
        return False

    def wait(self, seconds: float) -> bool:
        """Wait on a thread of one's own until something arrives; return whether it did."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    # --- for tasks ------------------------------------------------------------------------------

    async def receive(self, into: memoryview, raw: bytearray, timeout_s: float) -> int:
        """Read what arrives *into* a buffer; return how much, 0 at the end.

        Raises:
            TimeoutError: nothing arrived for *timeout_s*.
            BadResponse, OSError: as `take`.
        """
        while (count := self.take(into, raw)) is None or count == NOTHING:
            if count is None:
                await self._ready(timeout_s, writing=False)
            else:
                await asyncio.sleep(0)
        return count

    async def send(self, data: bytes, timeout_s: float) -> None:
        """Send all of *data*.

        Raises:
            TimeoutError: none of it could be sent for *timeout_s*.
            OSError: the connection broke.
        """
        if self._tls is not None:
            self._tls.write(data)
            data = self._leaving.read()
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[self._sock.send(rest) :]
            except BlockingIOError:
                await self._ready(timeout_s, writing=True)

    @property
    def certificates(self) -> tuple[bytes | None, int]:
        """The certificate at the other end, in DER, once TLS has been agreed on, and how many were sent with it."""
        if self._tls is None:
            return None, 0
        public = getattr(self._tls, "get_unverified_chain", None)  # of Python 3.13; before, of the object within
        chain = (public or self._tls._sslobj.get_unverified_chain)()  # type: ignore[attr-defined]
        return self._tls.getpeercert(binary_form=True), len(chain or ()) - 1

    async def begin_tls(self, context: ssl.SSLContext, host: str, raw: bytearray, timeout_s: float) -> None:
        """Shake hands, in *timeout_s* at most, and see that the certificate is that of *host*.

        Raises:
            ssl.SSLCertVerificationError: it is not, or of nobody we trust.
            OSError: there is no TLS to be had.
        """
        tls = context.wrap_bio(self._arrived, self._leaving, server_hostname=host)
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    tls.do_handshake()
                except ssl.SSLWantReadError:
                    await self._flush(timeout_s)
                    if self._take_raw(raw):
                        await asyncio.sleep(0)  # however much has arrived, others have their turn
                    else:
                        await self._ready(timeout_s, writing=False)
                except ssl.SSLError:
                    with suppress(OSError):
                        await self._flush(timeout_s)  # the alert that says why
                    raise
                else:
                    break
            await self._flush(timeout_s)
        self._tls = tls

    async def _flush(self, timeout_s: float) -> None:
        if self._leaving.pending:
            await self.send(self._leaving.read(), timeout_s)

    async def _ready(self, timeout_s: float, *, writing: bool) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        timer = loop.call_later(timeout_s, _fail, ready)
        add: Callable[..., None] = loop.add_writer if writing else loop.add_reader
        try:
            add(self._sock, _succeed, ready)
            await ready
        finally:
            timer.cancel()
            (loop.remove_writer if writing else loop.remove_reader)(self._sock)


def _succeed(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)


def _fail(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_exception(TimeoutError())
