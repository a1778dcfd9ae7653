"""What each target is given: valid examples, and the words of their grammar that bending them needs."""

import json

from shared.store.tokens import Credential
from tests.fuzz.inputs import Bent, BentDocument, BentHead, parameters
from tests.fuzz.schemas import BentSchema

SHA256 = b"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
DECLARED = f"sha256:{SHA256.decode()}"
ID = b"registration-019bc2a4-6f00-7c3e-8f6e-5b1f0d9a7c11"
CREDENTIAL = Credential("a" * 12, "b" * 40).text
NEXT_CONNECTION = b"\n\n=== the next connection ===\n\n"
TOKEN = b"__TOKEN__"
"""Stands in a request for a token that is good."""
_AS_SOMEBODY = b"Authorization: Bearer " + TOKEN + b"\n"
DOCUMENT = {
    "name": "nginx-log-collector",
    "version": "2.1.0-rc.1+build.5",
    "pluginType": "log",
    "artifactUrl": "https://host.example/plugins/nginx.tar.gz?sig=abc",
    "checksum": DECLARED,
    "configSchema": '{"type": "object", "properties": {"path": {"type": "string", "pattern": "^/"}}}',
    "pluginRuntime": "go",
}
_BODY = json.dumps(DOCUMENT).encode()
_MARKS = tuple(bytes([mark]) for mark in b";,=\"\\ \t/.-'%:@[*a0")
_NAME_WORDS = tuple(bytes([letter]) for letter in b"a-. 0_*?")
_URLS = (
    b"https://host.example/a/b.tar.gz?sig=x&y=%2f",
    b"http://93.184.216.34:8080/",
    b"https://[2606:2800:220:1::1]:443/a",
    b"https://xn--bcher-kva.example./?q",
)
_URL_WORDS = (b"://", b"..", b"//", b"@", b"[", b"]", b":", b"%25", b"0x7f", b"127.0.0.1", b"localhost", b"::ffff:")
_JSON_WORDS = (b"{", b"}", b"[", b"]", b'"a":', b'"', b",", b":", b"\\", b"\\u0061", b"null", b"1", b"NaN", b'"a":0,')
_MEDIA_TYPES = (b'application/json; charset="utf-8"', b"multipart/mixed; boundary=x", b"message/rfc822", b"text/html")

URLS = Bent(_URLS, _URL_WORDS)
JSON = Bent((_BODY, b'[{"a": {"b": 1.5e3}}, "\\u00e9", null]'), _JSON_WORDS)
SCHEMAS = BentSchema(
    Bent(
        (
            DOCUMENT["configSchema"].encode(),
            b"true",
            b'{"$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}}',
            b'{"not": {"items": {"allOf": [{"pattern": "^(a|b)*$"}, {}]}}}',
        ),
        (
            *_JSON_WORDS,
            b'"$ref":"#"',
            b'{"allOf":[',
            b'{"not":',
            b'{"items":',
            b"(",
            b")*",
            b"{1000}",
            b"(?=",
            b"\\\\p",
        ),
    )
)
SUBMISSIONS = BentDocument(
    DOCUMENT,
    {
        "name": Bent((b"nginx log.collector_1-2",), _NAME_WORDS),
        "version": Bent((b"2.1.0-rc.1+build.5", b"1.0.0-0a.1"), (*_NAME_WORDS, b"+", b"0a", b"-.")),
        "artifactUrl": URLS,
        "checksum": Bent((DECLARED.encode(),), (b"sha256:", SHA256, b"g", b"  a.tar.gz")),
        "configSchema": SCHEMAS,
        "pluginRuntime": Bent((b"go",), _NAME_WORDS),
        "pluginType": Bent((b"log", b"metric")),
        "more": Bent((b"x",)),
    },
    JSON,
)
PREFER = Bent(
    (b"respond-async, wait=10", b'wait="5"; foo="a\\"b", handling=lenient\nrespond-async'),
    (*_MARKS, b"wait=", b"\n", b'a="b\\"'),
    parameters,
)
QUERIES = Bent(
    (
        b"limit=5&cursor=cmVnaXN0cmF0aW9uLTAxOWJjMmE0LTZmMDAtN2MzZS04ZjZlLTViMWYwZDlhN2MxMQ==&name=a%20b",
        b"status=queued&since=2026-01-15T08:00:00.123%2B01:00&cause=html-page",
        b"since=0001-01-01T00:00:00%2B23:59",
        ID,
    ),
    (b"&", b"=", b"%", b"cursor=", b"since=", b"9999-12-31T23:59:60Z", b"%00", b"%2B"),
)
LOGGED = Bent(
    (
        b"fetched https://u:p@host.example/a?sig=b#c for Bearer " + CREDENTIAL.encode(),
        b"redis://:secret@host;redis://b@c",
    ),
    (b"://", b"?", b"@", b"#", b"prg_", b"<", b'"', b"https://"),
)
TOKENS = Bent((CREDENTIAL.encode(), b"team-a-collector"), (b"prg_", *_NAME_WORDS))

BODIES = Bent(
    (
        b"<!DOCTYPE html>\n<html lang=en><head><title>Sign in</title></head><body></body></html>",
        b"\r\n <!-- a --> <!-- b -->\n<HTML>",
        SHA256 + b"  plugin-1.0.tar.gz\n",
        b"sha256:" + SHA256 + b" *a b\r\n",
        b'<?xml version="1.0"?>\n<Error><Code>NoSuchKey</Code></Error>',
        b'{"message": "not found", "errors": []}',
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        bytes.fromhex("1f8b08000000000000ff4b4c4a0600c241243503000000"),
        b"\x7fELF\x02\x01\x01" + bytes(64),
    ),
    (b"<!--", b"-->", b"<!---->", b"<", b">", b"<?xml ", b"?>", b"<Error>", SHA256, b"sha256:", b" ", b"{", b"\n"),
)
CHUNKS = Bent(
    (b'3;a="b"\r\nabc\r\n0\r\nTrailer: x\r\n\r\n', b"0\r\n\r\n", b"00000003 \t\r\nabc\r\n0\n\n"),
    (b"\r\n", b"0\r\n", b";", b"1\r\na\r\n", b"ffffffffffffffff", b"\n", b" "),
)
_WHOLE = b'HTTP/1.1 200 OK\r\nContent-Length: 6\r\nETag: "a"\r\nContent-Type: application/gzip\r\n\r\nabcdef'
_REST = b'HTTP/1.1 206 Rest\r\nContent-Range: bytes 3-5/6\r\nContent-Length: 3\r\nETag: "a"\r\n\r\ndef'
ANSWERS = BentHead(
    Bent(
        (
            _WHOLE,
            NEXT_CONNECTION.join((_WHOLE[:-3], _REST)),
            b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a="b"\r\nabc\r\n0\r\nTrailer: x\r\n\r\n',
            NEXT_CONNECTION.join(
                (
                    b"HTTP/1.1 302 Found\r\nLocation: https://a.example/b/../c?d#e\r\n\r\n",
                    b"HTTP/1.0 200 OK\r\n\r\nabc",
                )
            ),
            NEXT_CONNECTION.join((b"HTTP/1.1 301 Moved\r\nLocation: ../c;d?e\r\nContent-Length: 0\r\n\r\n", _WHOLE)),
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\nabc",
            b"HTTP/1.1 503 Busy\r\nRetry-After: Mon, 01 Jan 2035 00:00:00 GMT\r\n\r\n",
            b"HTTP/1.1 429 Busy\r\nRetry-After: 120\r\nContent-Type: message/rfc822\r\n\r\n",
        ),
        (
            *(
                b"\r\n",
                b": ",
                b"\r\n ",
                b"\r",
                b"HTTP/1.1 ",
                b"A: b\r\n",
                b"--x\r\n",
                b"bytes 3-5/6",
                NEXT_CONNECTION,
            ),
            *(b"HTTP/1.1 100 Continue\r\n\r\n", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n"),
            *(b"Content-Type: multipart/mixed; boundary=x\r\n", b"Content-Type: message/rfc822\r\n"),
        ),
        parameters,
    ),
    {
        b"Content-Type": Bent(_MEDIA_TYPES, _MARKS, parameters),
        b"Location": Bent((*_URLS, b"../a;b?c#d", b"//host.example/", b"http:a"), (*_MARKS, *_URL_WORDS)),
        b"Retry-After": Bent((b"120", b"Mon, 01 Jan 2035 00:00:00 GMT", b"Monday, 01-Jan-35 0:0:0 -2359"), _MARKS),
        b"ETag": Bent((b'"a"', b'W/"a"'), _MARKS),
        b"Content-Range": Bent((b"bytes 3-5/6", b"bytes */6"), _MARKS),
        b"Content-Length": Bent((b"3", b"3, 3"), _MARKS),
        b"Transfer-Encoding": Bent((b"chunked", b"gzip, chunked"), _MARKS),
        b"Content-Encoding": Bent((b"identity",), _MARKS),
        b"Connection": Bent((b"close", b"keep-alive"), _MARKS),
        b"X": Bent((b"a",), _MARKS),
    },
    end=b"\r\n",
)
REQUESTS = BentHead(
    Bent(
        (
            b"POST /api/v1/plugins?dryRun=true\nContent-Type: application/json\n" + _AS_SOMEBODY + b"\n" + _BODY,
            b"POST /api/v1/plugins\nPrefer: respond-async\nContent-Length: 10\n" + _AS_SOMEBODY + b"\n" + _BODY,
            b"GET /api/v1/plugins?limit=5&cursor=AAAA&name=a\n" + _AS_SOMEBODY,
            b"GET /api/v1/registrations?status=queued&since=2026-01-15T08:00:00Z\n" + _AS_SOMEBODY,
            b"GET /api/v1/registrations/" + ID + b"?x=1\nPrefer: wait=0\n" + _AS_SOMEBODY,
            b"POST /api/v1/registrations/" + ID + b"/retry\n" + _AS_SOMEBODY,
            b"GET /operations?q=a&done=retry\nHost: host.example\nAccept: text/html\nCookie: a=b\n",
            b"POST /operations/sign-in\nHost: host.example\nOrigin: http://host.example\n\ntoken=prg_a&form=b",
            b"POST /operations/act\nHost: host.example\nCookie: plugin_registry_session=a\n\ndo=cancel:a&form=b",
            b"GET /healthz\nHost: host.example\nX-Forwarded-For: 1.2.3.4\n",
            b"GET /nothing/\nHost: host.example:80\nAccept: text/html\n",
        ),
        (
            *_MARKS,
            b"\n",
            b": ",
            b"\\a",
            b"%00",
            b"%ff",
            b"?",
            b"&",
            b"cursor=",
            b"Cookie: ",
            b"Host: [\n",
            _AS_SOMEBODY,
        ),
        parameters,
    ),
    {
        b"Content-Type": Bent(_MEDIA_TYPES, _MARKS, parameters),
        b"Cookie": Bent((b'plugin_registry_session="a\\042b"; c=d', b"a=b"), (*_MARKS, b"\\a", b"\\042")),
        b"Host": Bent((b"host.example:80", b"[::1]", b"user@host"), (*_MARKS, *_URL_WORDS)),
        b"Prefer": Bent((b'respond-async; a="b", wait=0',), _MARKS, parameters),
        b"Authorization": Bent((b"Bearer " + TOKEN, b"Basic YTpi"), _MARKS),
        b"Content-Length": Bent((b"10",), _MARKS),
        b"Accept": Bent((b"text/html;q=0.5, */*",), _MARKS, parameters),
        b"Origin": Bent((b"http://host.example", b"null"), (*_MARKS, *_URL_WORDS)),
        b"X-Forwarded-For": Bent((b"1.2.3.4, ::1",), _MARKS),
        b"Last-Event-ID": Bent((b"1",), _MARKS),
        b"traceparent": Bent((b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",), _MARKS),
    },
    end=b"\n",
)
