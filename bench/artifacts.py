"""The artifact host and its certificate, for the length of a bench."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import trustme

from bench.origin import large_checksum


@dataclass(frozen=True)
class Artifacts:
    """Where the artifacts are."""

    small: str
    http: str
    https: str
    ca_file: Path
    large_mib: int
    large_checksum: str
    host: psutil.Process

    def settings(self) -> dict[str, str]:
        """Return the settings under which a registry may fetch from here."""
        ports = [url.rpartition(":")[2].partition("/")[0] for url in (self.small, self.http, self.https)]
        return {
            "REGISTRY_EGRESS_SCHEMES": "http,https",
            "REGISTRY_EGRESS_PORTS": ",".join(ports),
            "REGISTRY_EGRESS_ALLOW_NETWORKS": "127.0.0.1/32",
            "REGISTRY_EGRESS_CA_FILE": str(self.ca_file),
        }


@contextmanager
def artifacts(folder: Path, *, large_mib: int) -> Iterator[Artifacts]:
    """Serve artifacts over http and https for the length of the block."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    leaf = folder / "leaf.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(leaf)
    server = subprocess.Popen(
        [sys.executable, "-m", "bench.origin", "--large-mib", str(large_mib), "--certificate", str(leaf)],
        stdout=subprocess.PIPE,
    )
    try:
        assert server.stdout is not None
        ports = json.loads(server.stdout.readline())
        yield Artifacts(
            small=f"http://127.0.0.1:{ports['small']}",
            http=f"http://127.0.0.1:{ports['http']}/large",
            https=f"https://127.0.0.1:{ports['https']}/large",
            ca_file=folder / "ca.pem",
            large_mib=large_mib,
            large_checksum=large_checksum(large_mib),
            host=psutil.Process(server.pid),
        )
    finally:
        server.kill()
        server.wait()
