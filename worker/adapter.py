"""A requests adapter that connects only as it is told to, never retries and never reuses a connection.

The seam is urllib3's ``_new_conn``, where a host name becomes a socket.
"""

import socket
import ssl
from collections.abc import Callable
from functools import partial
from http.client import HTTPException
from typing import Any

from requests import PreparedRequest, Response
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import SSLError
from urllib3.poolmanager import PoolManager, ProxyManager

from shared.errors import ConnectFailed
from worker.connect import NO_CONNECTION
from worker.framing import StrictResponse

Dial = Callable[[str, int], socket.socket]


class EgressAdapter(HTTPAdapter):
    """A requests adapter all of whose connections come from *dial*. It never retries.

    With *proxy_url* every request goes through that proxy; the environment's proxies are never used.
    """

    def __init__(self, dial: Dial, *, proxy_url: str | None = None) -> None:
        self._dial = dial
        self._proxies = {"http": proxy_url, "https": proxy_url} if proxy_url else {}
        super().__init__(pool_connections=32, pool_maxsize=1, max_retries=0)

    def get(self, request: PreparedRequest, *, timeout: tuple[float, float], verify: bool | str) -> Response:
        """Send *request* and return its response as soon as the head of that is there."""
        return self.send(request, stream=True, timeout=timeout, verify=verify, proxies=self._proxies)

    def build_response(self, req: PreparedRequest, resp: Any) -> Response:
        """Return *resp* as a response of requests. Cookies are not looked at: none is kept."""
        response = Response()
        response.status_code = resp.status
        response.headers = CaseInsensitiveDict(resp.headers)
        response.raw = resp
        response.url = req.url or ""
        response.request = req
        return response

    def init_poolmanager(self, connections: int, maxsize: int, block: bool = False, **options: Any) -> None:
        """Make the pools that dial our way."""
        self.poolmanager = _DialingPools(self._dial, num_pools=connections, maxsize=maxsize, block=block, **options)

    def proxy_manager_for(self, proxy: str, **options: Any) -> ProxyManager:
        """Make the pools that dial the proxy our way."""
        if proxy not in self.proxy_manager:
            headers = self.proxy_headers(proxy)
            self.proxy_manager[proxy] = _ProxyPools(
                self._dial, proxy_url=proxy, proxy_headers=headers, num_pools=32, maxsize=1, **options
            )
        manager: ProxyManager = self.proxy_manager[proxy]
        return manager


class _DialingPools(PoolManager):
    """Pools whose connections are made by *dial*."""

    def __init__(self, dial: Dial, **options: Any) -> None:
        super().__init__(**options)
        self._dial = dial
        self.pool_classes_by_scheme = {"http": _HTTPPool, "https": _HTTPSPool}

    def _new_pool(self, scheme: str, *args: Any, **options: Any) -> HTTPConnectionPool:
        pool = super()._new_pool(scheme, *args, **options)
        connection = _HTTPSConnection if scheme == "https" else _HTTPConnection
        pool.ConnectionCls = partial(connection, dial=self._dial)  # type: ignore[assignment]  # it is only called
        return pool


class _ProxyPools(_DialingPools, ProxyManager):
    """To any host, through a proxy."""


class _HTTPPool(HTTPConnectionPool):
    def _put_conn(self, conn: Any) -> None:
        """Close what another pool would keep: a second download on it would be dialled, and so checked, by nobody."""
        if conn is not None:
            conn.close()


class _HTTPSPool(HTTPSConnectionPool):
    _put_conn = _HTTPPool._put_conn


class _HTTPConnection(HTTPConnection):
    response_class = StrictResponse

    def __init__(self, *args: Any, dial: Dial, **options: Any) -> None:
        super().__init__(*args, **options)
        self._dial = dial

    def _new_conn(self) -> socket.socket:
        return self._dial(self._dns_host, self.port)


class _HTTPSConnection(_HTTPConnection, HTTPSConnection):
    def connect(self) -> None:
        """Connect and shake hands; whatever fails in that, but for a bad certificate, is a failed connection."""
        try:
            super().connect()
        except ssl.SSLCertVerificationError:
            raise
        except (OSError, HTTPException, SSLError) as error:
            raise ConnectFailed(NO_CONNECTION) from error
        # An end without close_notify must not pass for the end of a body without a length (RFC 9112 section 9.8).
        if isinstance(self.sock, ssl.SSLSocket):
            self.sock.suppress_ragged_eofs = False  # type: ignore[attr-defined]  # the stubs lack it
