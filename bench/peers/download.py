"""One large artifact, by a library: ``python -m bench.peers.download NAME URL CHECKSUM CA_FILE``."""

import hashlib
import json
import resource
import sys
import tempfile
import time

import pooch
import requests


def by_requests(url: str, checksum: str, ca_file: str) -> None:
    """As every tutorial has it."""
    sha256 = hashlib.sha256()
    with requests.get(url, stream=True, timeout=30, verify=ca_file) as response:
        response.raise_for_status()
        for chunk in response.iter_content(8192):
            sha256.update(chunk)
    assert f"sha256:{sha256.hexdigest()}" == checksum


def by_pooch(url: str, checksum: str, ca_file: str) -> None:
    """As its documentation has it; it keeps the file and hashes it then."""
    with tempfile.TemporaryDirectory() as folder:
        pooch.get_logger().setLevel("ERROR")
        pooch.retrieve(url, known_hash=checksum, path=folder, downloader=pooch.HTTPDownloader(verify=ca_file))


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    name, url, checksum, ca_file = sys.argv[1:]
    wall, cpu = time.perf_counter(), cpu_s()
    {"requests": by_requests, "pooch": by_pooch}[name](url, checksum, ca_file)
    print(json.dumps({"wall_s": time.perf_counter() - wall, "cpu_s": cpu_s() - cpu}))


if __name__ == "__main__":
    main()
