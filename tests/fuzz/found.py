"""What was found once, made as small as it gets: each ended in an error that was not ours, or did not end in time.

`tests/unit/test_fuzz.py` runs them all again, under the limits they were found with.
"""

FOUND: dict[str, list[bytes]] = {
    "request": [
        b'GET /healthz\nCookie: a="' + b"\\a" * 30_000 + b'"\n',
        b'GET /operations\nAccept: text/html\nCookie: plugin_registry_session="' + b"\\042" * 15_000 + b'"\n',
        b"GET /api/v1/plugins?\xff\nAccept: text/html\n",
        b"POST /operations/sign-in?\xff\nHost: [\n\ntoken=__TOKEN__",
        b"GET /operations?q=\xff\nHost: [\nAccept: text/html\n",
    ],
}
