"""Shapes of answers as real hosts send them: heads and framing, written by hand from their documentation and sources.

A host is what it puts beside every answer, and its situations: an artifact served, moved, missing, refused, put off.
`{n}` in a head is the length of the artifact, `{e}` that of the error's body, `{there}` where a redirect leads. How
the body is framed follows from the head: by length, in chunks, or to the end of the connection.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from textwrap import dedent

from tests.hostile_server import BODY, Wire

DATE = "Date: Mon, 30 Nov 2026 07:30:00 GMT"
MODIFIED = "Last-Modified: Wed, 11 Nov 2026 11:11:11 GMT"
JSON_ERROR = b'{"errors":[{"status":404,"message":"File not found."}]}'
XML_ERROR = b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>NoSuchKey</Code><Message>gone</Message></Error>'
HTML_ERROR = b"<html>\r\n<head><title>404 Not Found</title></head>\r\n<body>\r\n<center>nginx</center>\r\n</body>\r\n</html>\r\n"
TEXT_ERROR = b"404 page not found\n"


@dataclass(frozen=True)
class Shape:
    """One answer to the first request; where it redirects, *then* answers the second. *outcome* is its verdict."""

    name: str
    head: str
    outcome: str
    error: bytes = b""
    then: str = ""
    chunks: int = 1
    """How many the body comes in, where it comes in chunks."""
    line_end: str = "\r\n"

    def behave(self, wire: Wire) -> None:
        """Answer a request."""
        moved = wire.asked().path.startswith("/moved/")
        _send(wire, self, self.then if moved else self.head)


def _send(wire: Wire, shape: Shape, head: str) -> None:
    content = BODY if shape.outcome == "registered" else shape.error
    if " 30" in head[:13] or " 204" in head[:13] or "Content-Length: 0" in head:
        content = b""
    filled = (
        head.replace("{n}", str(len(BODY)))
        .replace("{e}", str(len(shape.error)))
        .replace("{there}", f"/moved/{SHAPES.index(shape)}?x=1")
    )
    wire.raw_head((filled.strip("\n").replace("\n", shape.line_end) + shape.line_end * 2).encode("latin-1"))
    if "transfer-encoding: chunked" in head.lower():
        size = -(-len(content) // shape.chunks) or 1
        for start in range(0, len(content), size):
            piece = content[start : start + size]
            wire.send(b"%x\r\n%s\r\n" % (len(piece), piece))
        wire.send(b"0\r\n\r\n")
    else:
        wire.send(content)


def _host(name: str, beside: str, error: bytes, *situations: tuple[str, str, str, str]) -> Iterator[Shape]:
    """Yield the shapes of a host; each situation is its name, its outcome, its status, and its own fields."""
    beside = dedent(beside).strip("\n")
    for what, outcome, status, fields in situations:
        own = dedent(fields).strip("\n")
        status_line = status if status.startswith("HTTP/") else f"HTTP/1.1 {status}"
        head = "\n".join(filter(None, [status_line, beside, own]))
        then = "\n".join(["HTTP/1.1 200 OK", beside, "Content-Length: {n}"]) if "{there}" in own else ""
        yield Shape(f"{name}: {what}", head, outcome, error, then, chunks=3 if "chunked" in own else 1)


OK, MISSING, BUSY, BAD, NOWHERE = "registered", "artifact-missing", "upstream-busy", "bad-response", "bad-redirect"


def _all() -> Iterator[Shape]:
    yield from _host(
        "GitHub releases",
        f"""
        Server: github.com
        {DATE}
        Vary: X-PJAX, X-PJAX-Container, Turbo-Visit, Turbo-Frame, Accept-Encoding, Accept, X-Requested-With
        Cache-Control: no-cache
        Strict-Transport-Security: max-age=31536000; includeSubdomains; preload
        X-Frame-Options: deny
        Set-Cookie: _gh_sess=abc%2Bdef; Path=/; HttpOnly; Secure; SameSite=Lax
        Content-Security-Policy: default-src 'none'; base-uri 'self'; child-src github.com/assets-cdn/worker/
        X-GitHub-Request-Id: C2A4:3E7:1B:2C:6565
        """,
        TEXT_ERROR,
        (
            "release moved",
            OK,
            "302 Found",
            "Location: {there}\nContent-Length: 0\nContent-Type: text/html; charset=utf-8",
        ),
        (
            "renamed repository",
            OK,
            "301 Moved Permanently",
            "Location: {there}\nContent-Type: text/html\nContent-Length: 0",
        ),
        ("no such asset", MISSING, "404 Not Found", "Content-Type: text/plain; charset=utf-8\nContent-Length: {e}"),
        (
            "secondary limit",
            BUSY,
            "403 Forbidden",
            "Retry-After: 60\nContent-Type: application/json\nContent-Length: {e}",
        ),
        (
            "primary limit",
            BUSY,
            "403 rate limit exceeded",
            "X-RateLimit-Limit: 60\nX-RateLimit-Remaining: 0\nX-RateLimit-Reset: 1796025600\nContent-Length: {e}",
        ),
        ("too many requests", BUSY, "429 Too Many Requests", "Retry-After: 60\nContent-Length: {e}"),
        ("unicorn", BUSY, "502 Bad Gateway", "Content-Type: text/html\nContent-Length: {e}"),
        ("archive being made", BUSY, "202 Accepted", "Retry-After: 5\nContent-Length: 0"),
    )
    yield from _host(
        "GitHub release storage",
        f"""
        Connection: keep-alive
        Last-Modified: Wed, 11 Nov 2026 11:11:11 GMT
        ETag: "0x8DD2A4C5F6B7E80"
        Server: Windows-Azure-Blob/1.0 Microsoft-HTTPAPI/2.0
        x-ms-request-id: 6b1d2f3a-701e-0042-3c4d-5e6f7a000000
        x-ms-version: 2025-11-05
        Content-Disposition: attachment; filename=plugin.tar.gz
        x-ms-lease-status: unlocked
        Via: 1.1 varnish, 1.1 varnish
        Accept-Ranges: bytes
        Age: 0
        {DATE}
        X-Served-By: cache-iad-kcgs7200101-IAD, cache-fra-eddf8230061-FRA
        X-Cache: HIT, HIT
        X-Cache-Hits: 9, 1
        X-Timer: S1764487800.123456,VS0,VE2
        """,
        XML_ERROR,
        ("served", OK, "200 OK", "Content-Type: application/octet-stream\nContent-Length: {n}"),
        ("signature expired", MISSING, "403 Server failed to authenticate the request.", "Content-Length: {e}"),
        ("signature of tomorrow", MISSING, "401 Unauthorized", "Content-Length: {e}"),
    )
    yield from _host(
        "S3",
        f"""
        x-amz-id-2: abcDEF123+/=
        x-amz-request-id: 0A1B2C3D4E5F6A7B
        {DATE}
        Server: AmazonS3
        """,
        XML_ERROR,
        (
            "object",
            OK,
            "200 OK",
            f'{MODIFIED}\nETag: "9a0364b9e99bb480dd25e1f0284c8555"\nx-amz-server-side-encryption: AES256\n'
            "Accept-Ranges: bytes\nContent-Type: binary/octet-stream\nContent-Length: {n}",
        ),
        ("multipart upload", OK, "200 OK", 'ETag: "d41d8cd98f00b204e9800998ecf8427e-12"\nContent-Length: {n}'),
        (
            "other region",
            OK,
            "307 Temporary Redirect",
            "Location: {there}\nContent-Type: application/xml\nContent-Length: 0",
        ),
        (
            "wrong region",
            NOWHERE,
            "301 Moved Permanently",
            "x-amz-bucket-region: eu-west-1\nContent-Type: application/xml\nTransfer-Encoding: chunked",
        ),
        ("no such key", MISSING, "404 Not Found", "Content-Type: application/xml\nTransfer-Encoding: chunked"),
        ("not listed", MISSING, "403 Forbidden", "Content-Type: application/xml\nTransfer-Encoding: chunked"),
        ("presigned and expired", MISSING, "403 Forbidden", "Content-Type: application/xml\nConnection: close"),
        (
            "presigned with two signatures",
            MISSING,
            "400 Bad Request",
            "Content-Type: application/xml\nConnection: close",
        ),
        ("slow down", BUSY, "503 Slow Down", "Content-Type: application/xml\nConnection: close"),
        ("internal error", BUSY, "500 Internal Server Error", "Connection: close"),
        (
            "in the archive",
            MISSING,
            "403 Forbidden",
            "x-amz-storage-class: GLACIER\nContent-Type: application/xml\nContent-Length: {e}",
        ),
        ("precondition", MISSING, "412 Precondition Failed", "Content-Type: application/xml\nContent-Length: {e}"),
    )
    yield from _host(
        "Google Cloud Storage",
        f"""
        X-GUploader-UploadID: ABPtcPqr-stuv_wxyz
        {DATE}
        Expires: Mon, 30 Nov 2026 08:30:00 GMT
        Cache-Control: public, max-age=3600
        Server: UploadServer
        Alt-Svc: h3=":443"; ma=2592000,h3-29=":443"; ma=2592000
        """,
        XML_ERROR,
        (
            "object",
            OK,
            "200 OK",
            'Last-Modified: Wed, 11 Nov 2026 11:11:11 GMT\nETag: "c7c5c1d70c5dec4416ab6158afd0b223"\n'
            "x-goog-generation: 1731323471234567\nx-goog-hash: crc32c=AAAAAA==\nx-goog-hash: md5=x8XB1wxd7EQWq2FYr9CyIw==\n"
            "x-goog-stored-content-encoding: identity\nx-goog-stored-content-length: {n}\nAccept-Ranges: bytes\n"
            "Content-Type: application/gzip\nContent-Length: {n}",
        ),
        (
            "transcoded",
            OK,
            "200 OK",
            "Warning: 214 UploadServer gunzipped\nx-goog-stored-content-encoding: gzip\nTransfer-Encoding: chunked",
        ),
        (
            "no such object",
            MISSING,
            "404 Not Found",
            "Content-Type: application/xml; charset=UTF-8\nContent-Length: {e}",
        ),
        (
            "anonymous",
            MISSING,
            "401 Unauthorized",
            'WWW-Authenticate: GoogleLogin realm="https://accounts.google.com"\nContent-Length: {e}',
        ),
        ("rate", BUSY, "429 Too Many Requests", "Content-Length: {e}"),
        ("unavailable", BUSY, "503 Service Unavailable", "Content-Length: {e}"),
    )
    yield from _host(
        "Azure Blob",
        f"""
        Server: Windows-Azure-Blob/1.0 Microsoft-HTTPAPI/2.0
        x-ms-request-id: 1f9c1b2a-001e-0033-4f5e-6a7b8c000000
        x-ms-version: 2009-09-19
        {DATE}
        """,
        b"\xef\xbb\xbf" + XML_ERROR,
        (
            "blob",
            OK,
            "200 OK",
            "Content-Length: {n}\nContent-Type: application/octet-stream\nContent-MD5: x8XB1wxd7EQWq2FYr9CyIw==\nETag: 0x8DD2A4C5F6B7E80\nx-ms-blob-type: BlockBlob",
        ),
        (
            "no such blob",
            MISSING,
            "404 The specified blob does not exist.",
            "Content-Length: {e}\nContent-Type: application/xml",
        ),
        (
            "public access off",
            MISSING,
            "409 Public access is not permitted on this storage account.",
            "Content-Length: {e}",
        ),
        ("server busy", BUSY, "503 The server is busy.", "Content-Length: {e}"),
        ("timed out", BUSY, "500 Operation could not be completed within the specified time.", "Content-Length: {e}"),
    )
    yield from _host(
        "Artifactory",
        f"""
        {DATE}
        X-JFrog-Version: Artifactory/7.98.9 79809900
        X-Artifactory-Id: 0123456789abcdef:-1a2b3c4d
        X-Artifactory-Node-Id: a0123456789ab
        Connection: keep-alive
        """,
        JSON_ERROR,
        (
            "file",
            OK,
            "200",
            'Content-Type: application/x-gzip\nContent-Length: {n}\nAccept-Ranges: bytes\nETag: "c7c5c1d70c5dec4416ab6158afd0b223ef40c29b"\n'
            "X-Artifactory-Filename: plugin.tar.gz\nX-Checksum-Md5: 9a0364b9e99bb480dd25e1f0284c8555\n"
            "Content-Disposition: attachment; filename=\"plugin.tar.gz\"; filename*=UTF-8''plugin.tar.gz",
        ),
        ("redirected to the cloud", OK, "302", "Location: {there}\nContent-Length: 0"),
        (
            "no such file",
            MISSING,
            "404",
            "Content-Type: application/json;charset=ISO-8859-1\nTransfer-Encoding: chunked",
        ),
        (
            "log-in",
            MISSING,
            "401",
            'WWW-Authenticate: Basic realm="Artifactory Realm"\nContent-Type: application/json\nTransfer-Encoding: chunked',
        ),
        ("blocked by a scan", MISSING, "403", "Content-Type: application/json\nTransfer-Encoding: chunked"),
        ("restarting", BUSY, "503", "Content-Length: {e}"),
    )
    yield from _host(
        "Nexus",
        f"""
        {DATE}
        Server: Nexus/3.75.1-01 (OSS)
        X-Content-Type-Options: nosniff
        Content-Security-Policy: sandbox allow-forms allow-modals allow-popups allow-presentation allow-scripts allow-top-navigation
        X-XSS-Protection: 1; mode=block
        """,
        HTML_ERROR,
        (
            "asset",
            OK,
            "200 OK",
            f'ETag: "{{SHA1{{c7c5c1d70c5dec4416ab6158afd0b223ef40c29b}}}}"\n{MODIFIED}\nContent-Type: application/gzip\nContent-Length: {{n}}',
        ),
        ("no such asset", MISSING, "404 Not Found", "Content-Type: text/html\nContent-Length: {e}"),
        (
            "log-in",
            MISSING,
            "401 Unauthorized",
            'WWW-Authenticate: BASIC realm="Sonatype Nexus Repository Manager"\nContent-Length: 0',
        ),
        ("blocked upstream", BUSY, "503 Service Unavailable", "Content-Length: {e}"),
    )
    yield from _host(
        "GitLab packages",
        f"""
        Server: nginx
        {DATE}
        Connection: keep-alive
        Cache-Control: max-age=0, private, must-revalidate
        Gitlab-Lb: haproxy-main-09-lb-gprd
        Gitlab-Sv: api-gke-us-east1-c
        Nel: {{"max_age": 0}}
        Referrer-Policy: strict-origin-when-cross-origin
        Vary: Origin
        X-Gitlab-Meta: {{"correlation_id":"01HF","version":"1"}}
        X-Request-Id: 01HF0000000000000000000000
        X-Runtime: 0.123456
        """,
        b'{"message":"404 Package Not Found"}',
        (
            "file",
            OK,
            "200 OK",
            'Content-Disposition: attachment; filename="plugin.tar.gz"\nContent-Type: application/octet-stream\nContent-Length: {n}\nEtag: W/"abc"',
        ),
        ("object storage", OK, "302 Found", "Location: {there}\nContent-Type: text/html\nContent-Length: 0"),
        ("no such package", MISSING, "404 Not Found", "Content-Type: application/json\nContent-Length: {e}"),
        (
            "sign in",
            OK,
            "302 Found",
            "Location: {there}\nContent-Type: text/html; charset=utf-8\nContent-Length: 0\nSet-Cookie: _gitlab_session=1; path=/; secure; HttpOnly",
        ),
        (
            "limit",
            BUSY,
            "429 Too Many Requests",
            "RateLimit-Limit: 500\nRateLimit-Observed: 501\nRateLimit-Remaining: 0\nRateLimit-Reset: 1796025600\nRetry-After: 33\nContent-Length: {e}",
        ),
        ("limit of unauthenticated", BUSY, "403 Forbidden", "RateLimit-Remaining: 0\nContent-Length: {e}"),
    )
    yield from _host(
        "SourceForge",
        f"""
        Server: nginx
        {DATE}
        X-From: sfp-web-2
        Set-Cookie: VISITOR=abc; expires="Thu, 28-Nov-2036 07:30:00 GMT"; httponly; Max-Age=315360000; Path=/
        Set-Cookie: sourceforge=def; expires="Tue, 19-Jan-2038 03:14:07 GMT"; httponly; Path=/
        """,
        HTML_ERROR,
        (
            "to the mirror",
            OK,
            "302 Found",
            "Content-Type: text/html; charset=UTF-8\nContent-Length: 0\nLocation: {there}",
        ),
        (
            "mirror",
            OK,
            "200 OK",
            f'Content-Type: application/octet-stream\nContent-Length: {{n}}\n{MODIFIED}\nETag: "656565-abc"\nAccept-Ranges: bytes',
        ),
        ("mirror without the file", MISSING, "404 Not Found", "Content-Type: text/html\nContent-Length: {e}"),
        ("mirror is down", BUSY, "503 Service Unavailable", "Content-Length: {e}"),
    )
    yield from _host(
        "Cloudflare",
        f"""
        {DATE}
        Connection: keep-alive
        CF-Cache-Status: DYNAMIC
        Report-To: {{"endpoints":[{{"url":"https://a.nel.example/report?s=x"}}],"group":"cf-nel","max_age":604800}}
        NEL: {{"success_fraction":0,"report_to":"cf-nel","max_age":604800}}
        Server: cloudflare
        CF-RAY: 8f0a1b2c3d4e5f60-FRA
        alt-svc: h3=":443"; ma=86400
        server-timing: cfL4;desc="?proto=TCP&rtt=1234"
        """,
        HTML_ERROR,
        (
            "served",
            OK,
            "200 OK",
            'Content-Type: application/gzip\nContent-Length: {n}\nETag: "abc"\nAccept-Ranges: bytes',
        ),
        ("passed on in chunks", OK, "200 OK", "Content-Type: application/octet-stream\nTransfer-Encoding: chunked"),
        (
            "challenge",
            MISSING,
            "403 Forbidden",
            "cf-mitigated: challenge\nContent-Type: text/html; charset=UTF-8\nTransfer-Encoding: chunked",
        ),
        ("blocked agent", MISSING, "403 Forbidden", "Content-Type: text/plain\nContent-Length: {e}"),
        ("limit", BUSY, "429 Too Many Requests", "Retry-After: 10\nContent-Length: {e}"),
        ("origin is down", BUSY, "521 <none>", "Content-Length: {e}"),
        ("origin timed out", BUSY, "522 <none>", "Content-Length: {e}"),
        ("origin's certificate", BUSY, "526 <none>", "Content-Length: {e}"),
        ("law", MISSING, "451 Unavailable For Legal Reasons", "Content-Length: {e}"),
    )
    yield from _host(
        "Fastly",
        f"""
        Connection: keep-alive
        Accept-Ranges: bytes
        {DATE}
        Via: 1.1 varnish
        X-Served-By: cache-fra-etou8220103-FRA
        X-Cache: MISS
        X-Cache-Hits: 0
        X-Timer: S1764487800.0,VS0,VE0
        Vary: Accept-Encoding, Fastly-SSL
        """,
        TEXT_ERROR,
        ("served", OK, "200 OK", 'ETag: "abc"\nContent-Type: application/gzip\nAge: 12345\nContent-Length: {n}'),
        ("streamed miss", OK, "200 OK", "transfer-encoding: chunked"),
        ("unknown domain", BUSY, "500 Domain Not Found", "Retry-After: 0\nContent-Length: {e}"),
        ("backend", BUSY, "503 Backend is unhealthy", "Retry-After: 0\nContent-Length: {e}"),
        ("misdirected", MISSING, "421 Misdirected Request", "Content-Length: {e}"),
    )
    yield from _host(
        "nginx",
        f"""
        Server: nginx/1.22.1
        {DATE}
        Connection: keep-alive
        """,
        HTML_ERROR,
        (
            "file",
            OK,
            "200 OK",
            f'Content-Type: application/octet-stream\nContent-Length: {{n}}\n{MODIFIED}\nETag: "65538ebf-320"\nAccept-Ranges: bytes',
        ),
        ("proxied in chunks", OK, "200 OK", "Content-Type: application/octet-stream\nTransfer-Encoding: chunked"),
        ("early hints", OK, "103 Early Hints\nLink: </a.css>; rel=preload\n\nHTTP/1.1 200 OK", "Content-Length: {n}"),
        ("moved", OK, "301 Moved Permanently", "Content-Type: text/html\nContent-Length: 0\nLocation: {there}"),
        ("no such file", MISSING, "404 Not Found", "Content-Type: text/html\nContent-Length: {e}"),
        ("directory", MISSING, "403 Forbidden", "Content-Type: text/html\nContent-Length: {e}"),
        ("limit_req", BUSY, "503 Service Temporarily Unavailable", "Content-Type: text/html\nContent-Length: {e}"),
        ("gateway", BUSY, "504 Gateway Time-out", "Content-Type: text/html\nContent-Length: {e}"),
        ("connection closed", MISSING, "400 Bad Request", "Connection: close\nContent-Length: {e}"),
    )
    yield from _host(
        "Apache",
        f"""
        {DATE}
        Server: Apache/2.4.62 (Debian)
        """,
        HTML_ERROR,
        (
            "file",
            OK,
            "200 OK",
            f'{MODIFIED}\nETag: "320-62f3a1b2c3d4e"\nAccept-Ranges: bytes\nContent-Length: {{n}}\nKeep-Alive: timeout=5, max=100\nConnection: Keep-Alive\nContent-Type: application/x-gzip',
        ),
        ("script without a length", OK, "200 OK", "Connection: close\nContent-Type: application/x-gzip"),
        (
            "script in chunks",
            OK,
            "200 OK",
            "Keep-Alive: timeout=5, max=99\nConnection: Keep-Alive\nTransfer-Encoding: chunked",
        ),
        ("multiple choices", BAD, "300 Multiple Choices", 'Alternates: {{"a.tar.gz" 1}}\nContent-Length: 0'),
        (
            "moved",
            OK,
            "302 Found",
            "Location: {there}\nContent-Length: 0\nContent-Type: text/html; charset=iso-8859-1",
        ),
        (
            "no such file",
            MISSING,
            "404 Not Found",
            "Content-Length: {e}\nContent-Type: text/html; charset=iso-8859-1",
        ),
        ("log-in", MISSING, "401 Unauthorized", 'WWW-Authenticate: Basic realm="Restricted"\nContent-Length: {e}'),
        ("gone", MISSING, "410 Gone", "Content-Length: {e}"),
        ("old proxy", OK, "HTTP/1.0 200 OK", "Content-Length: {n}\nConnection: close"),
    )
    yield from _host(
        "IIS",
        f"""
        Server: Microsoft-IIS/10.0
        X-Powered-By: ASP.NET
        {DATE}
        """,
        HTML_ERROR,
        (
            "file",
            OK,
            "200 OK",
            f'Content-Type: application/x-gzip\n{MODIFIED}\nAccept-Ranges: bytes\nETag: "0123456789abcde1:0"\nContent-Length: {{n}}',
        ),
        ("weak validator", OK, "200 OK", 'ETag: W/"0123456789abcde1:0"\nContent-Length: {n}'),
        ("moved to raw characters", OK, "302 Object moved", "Location: {there}&n=M\xfcnchen b\nContent-Length: 0"),
        ("no mime type", MISSING, "404 Not Found", "Content-Type: text/html\nContent-Length: {e}"),
        (
            "log-in by NTLM",
            MISSING,
            "401 Unauthorized",
            "WWW-Authenticate: Negotiate\nWWW-Authenticate: NTLM\nContent-Length: {e}",
        ),
        ("pool is down", BUSY, "503 Service Unavailable", "Connection: close\nContent-Length: {e}"),
    )
    yield from _host(
        "Caddy",
        f"""
        Alt-Svc: h3=":443"; ma=2592000
        Server: Caddy
        {DATE}
        """,
        b"",
        (
            "file",
            OK,
            "200 OK",
            'Accept-Ranges: bytes\nContent-Length: {n}\nEtag: "smzq0tm8"\nLast-Modified: Wed, 11 Nov 2026 11:11:11 GMT',
        ),
        ("https alone", OK, "308 Permanent Redirect", "Connection: close\nLocation: {there}\nContent-Length: 0"),
        ("no such file", MISSING, "404 Not Found", "Content-Length: 0"),
        ("gateway", BUSY, "502 Bad Gateway", "Content-Length: 0"),
    )
    yield from _host(
        "Python's http.server",
        f"""
        Server: SimpleHTTP/0.6 Python/3.11.2
        {DATE}
        """,
        HTML_ERROR,
        ("file", OK, "HTTP/1.0 200 OK", f"Content-type: application/gzip\nContent-Length: {{n}}\n{MODIFIED}"),
        ("directory", OK, "HTTP/1.0 301 Moved Permanently", "Location: {there}\nContent-Length: 0"),
        (
            "no such file",
            MISSING,
            "HTTP/1.0 404 File not found",
            "Connection: close\nContent-Type: text/html;charset=utf-8\nContent-Length: {e}",
        ),
        ("without a length", OK, "HTTP/1.0 200 OK", "Content-type: application/gzip"),
    )
    yield from _host(
        "aiohttp",
        f"{DATE}\nServer: Python/3.11 aiohttp/3.11.7",
        TEXT_ERROR,
        (
            "file",
            OK,
            "200 OK",
            'Etag: "185f3a1b2c3d4e5f-320"\nContent-Type: application/gzip\nAccept-Ranges: bytes\nContent-Length: {n}',
        ),
        ("stream", OK, "200 OK", "Content-Type: application/octet-stream\nTransfer-Encoding: chunked"),
        ("no such file", MISSING, "404 Not Found", "Content-Type: text/plain; charset=utf-8\nContent-Length: {e}"),
    )
    yield from _host(
        "Go's net/http",
        DATE,
        TEXT_ERROR,
        (
            "file",
            OK,
            "200 OK",
            f"Accept-Ranges: bytes\nContent-Length: {{n}}\nContent-Type: application/gzip\n{MODIFIED}",
        ),
        ("stream", OK, "200 OK", "Content-Type: application/octet-stream\nTransfer-Encoding: chunked"),
        ("moved", OK, "302 Found", "Content-Type: text/html; charset=utf-8\nLocation: {there}\nContent-Length: 0"),
        (
            "no such file",
            MISSING,
            "404 Not Found",
            "Content-Type: text/plain; charset=utf-8\nX-Content-Type-Options: nosniff\nContent-Length: {e}",
        ),
        ("plain to TLS", MISSING, "HTTP/1.0 400 Bad Request", "Content-Length: {e}"),
        ("timeout", BUSY, "503 Service Unavailable", "Content-Length: {e}"),
    )
    yield from _host(
        "Node",
        f"{DATE}\nConnection: keep-alive\nKeep-Alive: timeout=5",
        TEXT_ERROR,
        ("file", OK, "200 OK", "Content-Length: {n}"),
        ("stream", OK, "200 OK", "Transfer-Encoding: chunked"),
        (
            "express file",
            OK,
            "200 OK",
            'X-Powered-By: Express\nAccept-Ranges: bytes\nCache-Control: public, max-age=0\nETag: W/"320-19b0a1b2c3d"\nContent-Type: application/gzip\nContent-Length: {n}',
        ),
        (
            "express moved",
            OK,
            "302 Found",
            "X-Powered-By: Express\nLocation: {there}\nVary: Accept\nContent-Length: 0",
        ),
        (
            "express has none",
            MISSING,
            "404 Not Found",
            "X-Powered-By: Express\nContent-Type: text/html; charset=utf-8\nContent-Length: {e}",
        ),
        ("closing", OK, "HTTP/1.1 200 OK", "Connection: close"),
    )
    yield from _host(
        "Jetty and Tomcat",
        f"{DATE}\nServer: Jetty(9.4.56.v20240826)",
        HTML_ERROR,
        ("file", OK, "200 OK", "Content-Type: application/gzip\nAccept-Ranges: bytes\nContent-Length: {n}"),
        (
            "without a reason",
            OK,
            "HTTP/1.1 200 ",
            "Content-Type: application/gzip;charset=UTF-8\nTransfer-Encoding: chunked",
        ),
        (
            "no such file",
            MISSING,
            "HTTP/1.1 404 ",
            "Content-Language: en\nContent-Type: text/html;charset=utf-8\nContent-Length: {e}",
        ),
    )
    for host, line_end in (("an old CGI", "\n"), ("a device", "\n")):
        yield Shape(f"{host}: bare line feeds", "HTTP/1.0 200 OK\nContent-Length: {n}", OK, line_end=line_end)
    yield Shape("an old proxy: folded field", "HTTP/1.1 200 OK\nX-Note: one\n two\nContent-Length: {n}", OK)
    yield Shape("an old proxy: padded length", "HTTP/1.1 200 OK\nContent-Length:   {n}  ", OK)
    yield Shape("an old proxy: no change", 'HTTP/1.1 304 Not Modified\nETag: "x"', BAD)
    yield Shape("an old proxy: no content", "HTTP/1.1 204 No Content", BAD)
    yield Shape("an old proxy: log-in", "HTTP/1.1 407 Proxy Authentication Required\nContent-Length: 0", MISSING)


SHAPES = list(_all())


def every_shape(wire: Wire) -> None:
    """Answer by the shape whose number the path is, or holds."""
    number = wire.asked().path.partition("?")[0].rpartition("/")[2]
    SHAPES[int(number)].behave(wire)
