"""What tests of hosts share: a bench for each file, and an authority that its worker trusts."""

import ssl
from collections.abc import Iterator

import pytest
import trustme

from tests.hostile_server import tls_with
from tests.workbench import Workbench


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def bench(authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workbench]:
    bench = Workbench(tmp_path_factory.mktemp("hostile"), authority)
    yield bench
    bench.close()


@pytest.fixture
def tls(authority: trustme.CA) -> ssl.SSLContext:
    """The server's side of TLS under a certificate that is in order."""
    return tls_with(authority.issue_cert("127.0.0.1"))
