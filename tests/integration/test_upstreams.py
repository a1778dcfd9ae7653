"""What honest, old and broken hosts send, and what must come of it: raw sockets, a real store, the composed worker.

The rules are U1 to U18 of `docs/upstreams.md`; where two of them meet, the outcome follows from both.
"""

import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

from shared.registration import Registration
from tests.contracts import now
from tests.hostile_server import (
    BODY,
    CHUNK,
    CHUNKED,
    ETAG,
    LAST_CHUNK,
    LENGTH,
    OK,
    Behaviour,
    HostileServer,
    Wire,
    answering,
    redirecting,
    redirecting_for_ever,
    redirecting_times,
    self_signed,
    serving,
    tls_with,
)
from tests.running import until
from tests.workbench import (
    BAD_CERTIFICATE,
    BAD_REDIRECT,
    BAD_RESPONSE,
    BUSY,
    CONNECT_FAILED,
    LED_ASTRAY,
    MISMATCH,
    MISSING,
    REGISTERED,
    TRUNCATED,
    Outcome,
    Verdict,
    Workbench,
    attempted,
    cases,
    queued,
)
from worker.running import Running

FOUND = "HTTP/1.1 302 Found"
NOTHING = "Content-Length: 0"
HALF = 400


def came_of(bench: Workbench, behave: Behaviour, *, declared: bytes = BODY, **changes: object) -> Outcome:
    """Return what one attempt at a host that does what *behave* says came to."""
    with HostileServer(behave) as server:
        return attempted(bench.verifier(**changes), server.url, declared=declared)


def in_turn(*behaviours: Behaviour) -> Behaviour:
    """Treat the first connection by the first of *behaviours*, and so on; those after the last by that."""
    left = list(behaviours)

    def behave(wire: Wire) -> None:
        (left.pop(0) if len(left) > 1 else left[0])(wire)

    return behave


def cause_of(outcome: Outcome) -> tuple[str, str]:
    """Return the cause of a failure, and its sentence."""
    failure = outcome.registration.failure
    assert failure is not None, outcome
    return failure.cause, failure.detail


# U1: white space around a field's value


@pytest.mark.parametrize("pad", [" ", "  ", "\t", " \t "])
def test_white_space_around_a_value_is_no_part_of_it(bench: Workbench, pad: str) -> None:
    padded = answering(
        OK, f"Content-Length:{pad}{len(BODY)}{pad}", f'ETag:{pad}"x"{pad}', f"Connection:{pad}close{pad}"
    )
    assert came_of(bench, padded).verdict == REGISTERED
    assert came_of(bench, redirecting(f"{pad}/b{pad}")).verdict == REGISTERED
    chunked = answering(OK, f"Transfer-Encoding:{pad}chunked{pad}", body=CHUNK + LAST_CHUNK)
    assert came_of(bench, chunked).verdict == REGISTERED


@pytest.mark.parametrize("pad", [" ", "\t "])
def test_white_space_around_what_resumes_is_no_part_of_it(bench: Workbench, pad: str) -> None:
    etag = f'ETag:{pad}"x"{pad}'
    part = f"Content-Range:{pad}bytes {HALF}-{len(BODY) - 1}/{len(BODY)}{pad}"
    breaking = in_turn(
        answering(OK, LENGTH, etag, body=BODY[:HALF]),
        answering(
            "HTTP/1.1 206 Partial Content", f"Content-Length: {len(BODY) - HALF}", etag, part, body=BODY[HALF:]
        ),
    )
    with HostileServer(breaking) as server:
        assert attempted(bench.verifier(), server.url).verdict == REGISTERED
    assert server.requests[1].all("If-Range") == ['"x"']


def test_white_space_around_a_retry_after_is_no_part_of_it(bench: Workbench) -> None:
    outcome = came_of(bench, answering("HTTP/1.1 503 Busy", "Retry-After: \t55 ", NOTHING, body=b""), max_attempts=2)
    assert outcome.registration.next_attempt_at is not None
    assert outcome.registration.next_attempt_at - outcome.registration.updated_at > timedelta(seconds=50)


# U2: interim answers


INTERIM = {
    "100": "HTTP/1.1 100 Continue\r\n\r\n",
    "102": "HTTP/1.1 102 Processing\r\n\r\n",
    "103": "HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n",
    "103-twice": "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 2,
    "199": "HTTP/1.1 199 Whatever\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
}


def after(interim: str, then: Behaviour) -> Behaviour:
    def behave(wire: Wire) -> None:
        wire.raw_head(interim.encode())
        then(wire)

    return behave


@pytest.mark.parametrize("interim", cases(INTERIM))
def test_what_is_said_before_the_answer_is_skipped(bench: Workbench, interim: str) -> None:
    assert came_of(bench, after(interim, serving)).verdict == REGISTERED
    assert came_of(bench, after(interim, redirecting("/b"))).verdict == REGISTERED


def test_a_change_of_protocol_is_no_interim_answer(bench: Workbench) -> None:
    switching = after("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n", serving)
    assert came_of(bench, switching).verdict == BAD_RESPONSE


# U3 and U4: a part is not the whole, and who refuses a part says nothing of the whole


def breaking_first(then: Behaviour) -> Behaviour:
    """Break the first answer under a strong ETag; treat the request for the rest by *then*, and serve the whole."""

    def behave(wire: Wire) -> None:
        if wire.asked().all("Range"):
            then(wire)
        elif broken:
            serving(wire)
        else:
            broken.append(True)
            answering(OK, LENGTH, ETAG, body=BODY[:HALF])(wire)

    broken: list[bool] = []
    return behave


REST = f"Content-Length: {len(BODY) - HALF}"
THE_REST = f"Content-Range: bytes {HALF}-{len(BODY) - 1}/{len(BODY)}"
NO_REST = {
    "200-with-the-rest": answering(OK, REST, THE_REST, ETAG, body=BODY[HALF:]),
    "200-with-the-rest-in-chunks": answering(
        OK, CHUNKED, THE_REST, body=b"%x\r\n%s\r\n" % (len(BODY) - HALF, BODY[HALF:]) + LAST_CHUNK
    ),
    "200-with-the-rest-of-unknown-length": answering(
        OK, REST, f"Content-Range: bytes {HALF}-{len(BODY) - 1}/*", body=BODY[HALF:]
    ),
    "200-unsatisfied": answering(OK, NOTHING, f"Content-Range: bytes */{len(BODY)}", body=b""),
    "200-in-capitals": answering(OK, REST, THE_REST.replace("bytes", "Bytes"), body=BODY[HALF:]),
    "206-of-parts": answering(
        "HTTP/1.1 206 Partial Content", REST, "Content-Type: multipart/byteranges; boundary=x", body=BODY[HALF:]
    ),
    "redirect-to-nowhere": answering(FOUND, NOTHING, body=b""),
    "redirect-to-where-nobody-may-go": answering(FOUND, "Location: ftp://a.example/", NOTHING, body=b""),
    "two-framings": answering("HTTP/1.1 206 Partial Content", REST, THE_REST, ETAG, CHUNKED, body=CHUNK + LAST_CHUNK),
    **{
        f"{status}": answering(f"HTTP/1.1 {status} No", NOTHING, body=b"")
        for status in (
            501,
            502,
            503,
            204,
            300,
            304,
            400,
            401,
            403,
            404,
            405,
            406,
            409,
            410,
            412,
            416,
            417,
            418,
            451,
            499,
        )
    },
}


@pytest.mark.parametrize("then", cases(NO_REST))
def test_who_does_not_give_the_rest_is_asked_once_for_the_whole(bench: Workbench, then: Behaviour) -> None:
    with HostileServer(breaking_first(then)) as server:
        assert attempted(bench.verifier(), server.url).verdict == REGISTERED
    assert [len(each.all("Range")) for each in server.requests] == [0, 1, 0]


@pytest.mark.parametrize("status", [403, 408, 425, 429, 500, 503])
def test_who_says_later_to_who_wants_the_rest_is_busy(bench: Workbench, status: int) -> None:
    busy = answering(f"HTTP/1.1 {status} Later", "Retry-After: 1", NOTHING, body=b"")
    assert came_of(bench, breaking_first(busy)).verdict == BUSY


def test_what_was_fetched_whole_in_the_end_is_judged_by_that(bench: Workbench) -> None:
    with HostileServer(breaking_first(NO_REST["403"])) as server:
        assert attempted(bench.verifier(), server.url, declared=b"other").verdict == MISMATCH
    assert [len(each.all("Range")) for each in server.requests] == [0, 1, 0]


@pytest.mark.parametrize("broken", [b"zz\r\n", b"1\r\nxx\r\n"])
def test_a_first_answer_that_breaks_http_is_not_asked_for_again(bench: Workbench, broken: bytes) -> None:
    behave = answering(OK, CHUNKED, ETAG, body=CHUNK + broken)
    with HostileServer(behave) as server:
        assert attempted(bench.verifier(), server.url).verdict == BAD_RESPONSE
    assert len(server.requests) == 1


SPLICED = {
    "the-rest-as-200": answering(OK, REST, ETAG, body=BODY[HALF:]),
    "another-rest-without-a-validator": answering("HTTP/1.1 206 Partial Content", REST, THE_REST, body=b"x" * HALF),
    "a-rest-that-begins-at-0": answering(
        "HTTP/1.1 206 Partial Content", REST, THE_REST, ETAG, body=BODY[1 : HALF + 1]
    ),
}


@pytest.mark.parametrize("then", cases(SPLICED))
def test_what_was_pieced_together_is_not_judged_by_one_download(bench: Workbench, then: Behaviour) -> None:
    with HostileServer(breaking_first(then)) as server:
        assert attempted(bench.verifier(), server.url).verdict == REGISTERED
    assert [len(each.all("Range")) for each in server.requests] == [0, 1, 0]


@pytest.mark.parametrize(
    "content_range",
    [
        THE_REST,
        f"Content-Range: bytes 0-{HALF}/{len(BODY)}",
        f"Content-Range: bytes 0-{HALF}/*",
        "Content-Range: 5-99/100",
    ],
)
def test_a_first_answer_that_is_a_part_by_its_own_word_is_the_hosts_fault(
    bench: Workbench, content_range: str
) -> None:
    outcome = came_of(bench, answering(OK, LENGTH, content_range), declared=b"another")
    assert outcome.verdict == BAD_RESPONSE
    assert cause_of(outcome)[0] == "part-as-whole"


@pytest.mark.parametrize(
    "value",
    [
        f"bytes 0-{len(BODY) - 1}/{len(BODY)}",
        f"bytes=0-{len(BODY) - 1}/{len(BODY)}",
        f"bytes  0-{len(BODY) - 1}/*",
        f"bytes */{len(BODY)}",
        "none",
    ],
)
def test_a_range_that_takes_nothing_away_is_no_part(bench: Workbench, value: str) -> None:
    assert came_of(bench, answering(OK, LENGTH, f"Content-Range: {value}")).verdict == REGISTERED


# U5 and U6: where a Location leads


@pytest.mark.parametrize(
    ("location", "path"),
    cases(
        {
            "space": ("/my plugin.tgz", "/my%20plugin.tgz"),
            "raw-utf-8": ("/需求.tgz".encode().decode("latin-1"), "/%E9%9C%80%E6%B1%82.tgz"),
            "raw-latin-1": ("/caf\xe9", "/caf%E9"),
            "quote": ('/a"b', "/a%22b"),
            "angles": ("/<a>", "/%3Ca%3E"),
            "caret-and-backquote": ("/^`", "/%5E%60"),
            "braces-and-bar": ("/{a|b}", "/%7Ba%7Cb%7D"),
            "in-the-query": ("/b?x=a b&y={}", "/b?x=a%20b&y=%7B%7D"),
            "encoded-already": ("/%7Ea%2fb%2B%20", "/%7Ea%2fb%2B%20"),
            "percent-alone": ("/100%", "/100%"),
            "lone-question-mark": ("/b?", "/b?"),
            "lone-semicolon": ("/b;", "/b;"),
            "semicolon-and-question-mark": ("/b;?", "/b;?"),
            "parameters": ("/b;v=1.2;x?y;z", "/b;v=1.2;x?y;z"),
            "two-slashes": ("/b//c", "/b//c"),
            "fragment": ("/b#part", "/b"),
            "fragment-with-a-question-mark": ("/b#a?b", "/b"),
            "relative": ("b", "/b"),
            "query-alone": ("?b", "/artifact.tar.gz?b"),
            "dots": ("/a/./b/../c", "/a/c"),
            "dots-beyond-the-root": ("/../../b", "/b"),
            "dots-at-the-end": ("/a/b/..", "/a/"),
            "dots-in-the-query": ("/b?../c", "/b?../c"),
            "plus": ("/a+b?c+d", "/a+b?c+d"),
            "colon": ("/a:b", "/a:b"),
            "a-long-signature": ("/b?X-Amz-Security-Token=" + "a" * 3000, "/b?X-Amz-Security-Token=" + "a" * 3000),
        }
    ),
)
def test_a_location_leads_where_browsers_go(bench: Workbench, location: str, path: str) -> None:
    with HostileServer(redirecting(location)) as server:
        assert attempted(bench.verifier(), server.url).verdict == REGISTERED
    assert server.requests[1].path == path


def test_a_location_of_a_whole_url_goes_out_byte_for_byte(bench: Workbench) -> None:
    with HostileServer(serving) as there:
        for resource in ("/a/../b?", "/;?;", "/%2e%2e/a", "/a?x=/../y", "?q", ""):
            with HostileServer(redirecting(there.url_of(there.address, resource))) as server:
                assert attempted(bench.verifier(), server.url).verdict == REGISTERED
            asked = there.requests[-1].path
            assert asked == (resource if resource.startswith("/") else f"/{resource}")


@pytest.mark.parametrize(
    ("location", "verdict"),
    cases(
        {
            "space-in-the-host": ("http://127.0.0.1 /b", BAD_REDIRECT),
            "utf-8-in-the-host": ("http://m\xc3\xbcnchen.example/b", BAD_REDIRECT),
            "backslash": ("/a\\b", BAD_REDIRECT),
            "tab": ("/a\tb", BAD_REDIRECT),
            "no-authority": ("http:b", BAD_REDIRECT),
            "javascript": ("javascript:alert(1)", BAD_REDIRECT),
            "too-long": ("/" + "a" * 17_000, BAD_REDIRECT),
            "too-long-once-encoded": ("/" + " " * 6000 + "b", BAD_REDIRECT),
            "inwards": ("http://10.0.0.1:8080/ ", LED_ASTRAY),
            "metadata": ("http://169.254.169.254:8080/latest meta", LED_ASTRAY),
        }
    ),
)
def test_what_is_wrong_with_a_location_is_the_hosts_fault(bench: Workbench, location: str, verdict: Verdict) -> None:
    outcome = came_of(bench, redirecting(location))
    assert outcome.verdict == verdict
    assert "artifactUrl" not in cause_of(outcome)[1]


def test_a_redirect_to_a_name_that_does_not_exist_is_the_hosts_fault(bench: Workbench) -> None:
    outcome = came_of(bench, redirecting("http://nothing.invalid:8080/b"))
    assert outcome.verdict in {("rejected", "host-not-found", "upstream"), CONNECT_FAILED}


def test_a_redirect_to_two_places_is_refused_and_one_twice_is_followed(bench: Workbench) -> None:
    outcome = came_of(bench, redirecting("/b", "Location: /c"))
    assert (outcome.verdict, cause_of(outcome)[0]) == (BAD_REDIRECT, "ambiguous-redirect")
    assert came_of(bench, redirecting("/b", "Location: /b")).verdict == REGISTERED


# Hosts that say later: U7


LATER = {
    **{
        f"{status}-with-retry-after": answering(f"HTTP/1.1 {status} Later", "Retry-After: 1", NOTHING, body=b"")
        for status in (202, 204, 400, 401, 403, 404, 409, 423, 503)
    },
    "403-at-a-date": answering("HTTP/1.1 403 No", "Retry-After: Fri, 31 Dec 2100 23:59:59 GMT", NOTHING, body=b""),
    "202": answering("HTTP/1.1 202 Accepted", NOTHING, body=b""),
    "github": answering(
        "HTTP/1.1 403 rate limit exceeded",
        "x-ratelimit-remaining: 0",
        "x-ratelimit-reset: 4000000000",
        NOTHING,
        body=b"",
    ),
    "gitlab": answering("HTTP/1.1 403 Forbidden", "RateLimit-Remaining: 0", "RateLimit-Reset: 30", NOTHING, body=b""),
    "draft": answering("HTTP/1.1 403 Forbidden", 'RateLimit: "default";r=0;t=30', NOTHING, body=b""),
    "draft-with-quota": answering("HTTP/1.1 403 No", 'RateLimit: "default";q=9;r=0;t=30', NOTHING, body=b""),
    "draft-of-several": answering("HTTP/1.1 403 No", 'RateLimit: "a";r=5, "b";r=0', NOTHING, body=b""),
    "older-draft": answering("HTTP/1.1 403 No", "RateLimit: limit=9, remaining=0, reset=50", NOTHING, body=b""),
    "with-a-window": answering("HTTP/1.1 403 No", "RateLimit-Remaining: 0;w=21600", NOTHING, body=b""),
    "twice": answering("HTTP/1.1 403 No", "X-RateLimit-Remaining: 0", "X-RateLimit-Remaining: 0", NOTHING, body=b""),
    "below": answering("HTTP/1.1 403 No", "X-Rate-Limit-Remaining: -1", NOTHING, body=b""),
    "circle-later": answering(FOUND, "Location: /artifact.tar.gz", "Retry-After: 1", NOTHING, body=b""),
}


@pytest.mark.parametrize("behave", cases(LATER))
def test_a_host_that_says_later_is_asked_again(bench: Workbench, behave: Behaviour) -> None:
    assert came_of(bench, behave).verdict == BUSY
    outcome = came_of(bench, behave, max_attempts=2)
    assert outcome.registration.status == "queued"


@pytest.mark.parametrize(
    "fields",
    [
        ("x-ratelimit-remaining: 59",),
        ("RateLimit-Remaining: 10",),
        ('RateLimit: "default";r=10;t=30',),
        ("Retry-After:",),
    ],
)
def test_a_limit_that_is_not_used_up_is_no_later(bench: Workbench, fields: tuple[str, ...]) -> None:
    assert came_of(bench, answering("HTTP/1.1 403 No", *fields, NOTHING, body=b"")).verdict == MISSING


def test_a_reset_says_for_how_long(bench: Workbench) -> None:
    soon = int((datetime.now(UTC) + timedelta(seconds=55)).timestamp())
    for reset in (str(soon), "55"):
        fields = ("X-RateLimit-Remaining: 0", f"X-RateLimit-Reset: {reset}")
        outcome = came_of(bench, answering("HTTP/1.1 403 No", *fields, NOTHING, body=b""), max_attempts=2)
        assert outcome.registration.next_attempt_at is not None
        assert outcome.registration.next_attempt_at - outcome.registration.updated_at > timedelta(seconds=45)


# U8: each status has its own sentence


def test_each_status_says_what_to_do(bench: Workbench) -> None:
    told = {}
    for status in (400, 401, 404, 405, 412, 421, 451, 201, 206, 300, 304):
        outcome = came_of(bench, answering(f"HTTP/1.1 {status} No", NOTHING, body=b""))
        cause, told[status] = cause_of(outcome)
        assert cause == f"status-{status}"
        assert outcome.verdict == (MISSING if status >= 400 else BAD_RESPONSE)
    assert len(set(told.values())) == len(told)
    assert "published only now" in told[404]
    assert "plugin-registry/" in told[401]


def test_a_host_is_told_who_asks(bench: Workbench) -> None:
    with HostileServer(serving) as server:
        assert attempted(bench.verifier(contact="https://registry.example/about"), server.url).verdict == REGISTERED
    (agent,) = server.requests[0].all("User-Agent")
    assert agent.startswith("plugin-registry/")
    assert agent.endswith(" (+https://registry.example/about)")


# U9: a body whose end cannot be told from a cut


def unannounced(body: bytes) -> Behaviour:
    return answering("HTTP/1.0 200 OK", body=body)


def test_a_body_without_an_announced_end_that_was_cut_is_fetched_again(bench: Workbench) -> None:
    with HostileServer(in_turn(unannounced(BODY[:-9]), unannounced(BODY))) as server:
        assert attempted(bench.verifier(), server.url).verdict == REGISTERED
    assert server.connections == 2


def test_a_second_download_with_an_announced_end_proves_it(bench: Workbench) -> None:
    assert (
        came_of(bench, in_turn(unannounced(BODY[:-9]), answering(OK, LENGTH)), declared=b"other").verdict == MISMATCH
    )


def test_two_that_differ_say_nothing_and_are_tried_again(bench: Workbench) -> None:
    cut = in_turn(unannounced(BODY[:-9]), unannounced(BODY[:-5]))
    outcome = came_of(bench, cut)
    assert (outcome.verdict, cause_of(outcome)[0]) == (TRUNCATED, "unannounced-length")


def test_two_that_agree_are_the_artifact(bench: Workbench) -> None:
    with HostileServer(unannounced(b"another")) as server:
        outcome = attempted(bench.verifier(), server.url)
    assert outcome.verdict == MISMATCH
    assert "not announced" in cause_of(outcome)[1]
    assert server.connections == 2


def test_what_is_right_at_once_is_not_fetched_again(bench: Workbench) -> None:
    with HostileServer(unannounced(BODY)) as server:
        assert attempted(bench.verifier(), server.url).verdict == REGISTERED
    assert server.connections == 1


def test_what_has_an_announced_end_is_judged_by_one_download(bench: Workbench) -> None:
    with HostileServer(answering(OK, CHUNKED, body=CHUNK + LAST_CHUNK)) as server:
        assert attempted(bench.verifier(), server.url, declared=b"another").verdict == MISMATCH
    assert server.connections == 1


# U11: our limits are ours


def test_many_cookies_are_no_fault(bench: Workbench) -> None:
    cookies = [f"Set-Cookie: crumb{n}={'x' * 300}; Path=/; Secure; HttpOnly" for n in range(98)]
    assert came_of(bench, answering(OK, LENGTH, *cookies)).verdict == REGISTERED


@pytest.mark.parametrize(
    ("behave", "cause", "limit"),
    [
        (
            answering(OK, LENGTH, *(f"Set-Cookie: a={'x' * 1000}" for _ in range(70))),
            "answer-head-too-large",
            "65536 bytes",
        ),
        (after(INTERIM["100"] * 65, serving), "interim-answers", "64 interim"),
        (
            answering(OK, CHUNKED, body=CHUNK + b"0\r\n" + b"X: a\r\n" * 101 + b"\r\n"),
            "too-many-trailers",
            "100 trailers",
        ),
        (answering(OK, CHUNKED, body=b"1;" + b"x" * 5000), "chunk-line-too-long", "4096 bytes"),
    ],
)
def test_what_exceeds_a_limit_of_ours_names_it(bench: Workbench, behave: Behaviour, cause: str, limit: str) -> None:
    outcome = came_of(bench, behave)
    assert outcome.verdict == BAD_RESPONSE
    assert cause_of(outcome)[0] == cause
    assert limit in cause_of(outcome)[1]


@pytest.mark.parametrize("zeros", [1, 20, 1000])
def test_zeros_before_a_chunks_size_are_no_fault(bench: Workbench, zeros: int) -> None:
    chunks = b"0" * zeros + CHUNK + b"0" * zeros + b"0\r\n\r\n"
    assert came_of(bench, answering(OK, CHUNKED, body=chunks)).verdict == REGISTERED


# U12: TLS says why


def issued(
    issuer: tuple[x509.Certificate, ec.EllipticCurvePrivateKey] | None,
    name: str,
    *,
    authority: bool = False,
    days: tuple[int, int] = (-2, 2),
    tells_where: bool = False,
) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    """Return a certificate of *issuer* for *name*, and its key; *tells_where* its issuer's certificate is."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    today = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer[0].subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today + timedelta(days=days[0]))
        .not_valid_after(today + timedelta(days=days[1]))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if not authority:
        import ipaddress

        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(name))]), critical=False
        )
    if tells_where:
        where = x509.UniformResourceIdentifier("http://authority.example/intermediate.der")
        access = x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, where)
        builder = builder.add_extension(x509.AuthorityInformationAccess([access]), critical=False)
    return builder.sign(issuer[1] if issuer else key, hashes.SHA256()), key


def serving_tls(
    folder: Path,
    leaf: tuple[x509.Certificate, ec.EllipticCurvePrivateKey],
    *chain: x509.Certificate,
) -> ssl.SSLContext:
    """Return the server's side of TLS under *leaf*, sent with *chain*."""
    file = folder / "leaf.pem"
    pem = b"".join(each.public_bytes(serialization.Encoding.PEM) for each in (leaf[0], *chain))
    key = leaf[1].private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(pem + key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context


HERE = "127.0.0.1"


@pytest.fixture
def root() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    return issued(None, "An authority", authority=True)


def untrusted(
    folder: Path, _trusted: trustme.CA, root: tuple[x509.Certificate, ec.EllipticCurvePrivateKey]
) -> ssl.SSLContext:
    return serving_tls(folder, issued(root, HERE))


def untrusted_with_a_chain(
    folder: Path, _trusted: trustme.CA, root: tuple[x509.Certificate, ec.EllipticCurvePrivateKey]
) -> ssl.SSLContext:
    between = issued(root, "An intermediate", authority=True)
    return serving_tls(folder, issued(between, HERE, tells_where=True), between[0])


def signed_by_itself(_folder: Path, _trusted: trustme.CA, _root: object) -> ssl.SSLContext:
    return tls_with(self_signed())


def without_its_intermediate(
    folder: Path, _trusted: trustme.CA, root: tuple[x509.Certificate, ec.EllipticCurvePrivateKey]
) -> ssl.SSLContext:
    between = issued(root, "An intermediate", authority=True)
    return serving_tls(folder, issued(between, HERE, tells_where=True))


def for_another_name(_folder: Path, trusted: trustme.CA, _root: object) -> ssl.SSLContext:
    return tls_with(trusted.issue_cert("artifacts.example.com"))


def expired(_folder: Path, trusted: trustme.CA, _root: object) -> ssl.SSLContext:
    return tls_with(trusted.issue_cert(HERE, not_after=datetime.now(UTC) - timedelta(days=1)))


def of_tomorrow(folder: Path, trusted: trustme.CA, _root: object) -> ssl.SSLContext:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    return tls_with(trusted.issue_cert(HERE, not_before=tomorrow, not_after=tomorrow + timedelta(days=9)))


@pytest.mark.parametrize(
    ("certified", "cause"),
    [
        (expired, "certificate-expired"),
        (of_tomorrow, "certificate-not-yet-valid"),
        (for_another_name, "certificate-other-name"),
        (without_its_intermediate, "certificate-incomplete-chain"),
        (untrusted, "certificate-unknown-issuer"),
        (untrusted_with_a_chain, "certificate-unknown-issuer"),
        (signed_by_itself, "certificate-unknown-issuer"),
    ],
)
def test_a_certificate_that_is_refused_says_why(
    bench: Workbench,
    authority: trustme.CA,
    tmp_path: Path,
    root: tuple[x509.Certificate, ec.EllipticCurvePrivateKey],
    certified: Callable[..., ssl.SSLContext],
    cause: str,
) -> None:
    with HostileServer(serving, tls=certified(tmp_path, authority, root)) as server:
        outcome = attempted(bench.verifier(), server.url)
    assert (outcome.verdict, cause_of(outcome)[0]) == (BAD_CERTIFICATE, cause)
    assert not server.requests, "nothing is asked of whom nobody vouches for"


def old(authority: trustme.CA) -> ssl.SSLContext:
    context = tls_with(authority.issue_cert(HERE))
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    return context


def wanting_a_certificate(version: ssl.TLSVersion) -> Callable[[trustme.CA], ssl.SSLContext]:
    def wanting(authority: trustme.CA) -> ssl.SSLContext:
        context = tls_with(authority.issue_cert(HERE), version=version)
        context.verify_mode = ssl.CERT_REQUIRED
        authority.configure_trust(context)
        return context

    return wanting


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize(
    ("tls", "says"),
    cases(
        {
            "old": (old, "TLS 1.2"),
            "client-certificate-1.3": (wanting_a_certificate(ssl.TLSVersion.TLSv1_3), "client certificate"),
            "client-certificate-1.2": (wanting_a_certificate(ssl.TLSVersion.TLSv1_2), "client certificate"),
        }
    ),
)
def test_a_handshake_that_fails_says_why(
    bench: Workbench, authority: trustme.CA, tls: Callable[[trustme.CA], ssl.SSLContext], says: str
) -> None:
    with HostileServer(serving, tls=tls(authority)) as server:
        outcome = attempted(bench.verifier(), server.url)
    assert (outcome.verdict, cause_of(outcome)[0]) == (CONNECT_FAILED, "tls-handshake")
    assert says in cause_of(outcome)[1]


def answering_anybody(wire: Wire) -> None:
    """Answer what is no request of HTTP as nginx does."""
    wire.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    wire.pause(0.2)


def greeting(wire: Wire) -> None:
    wire.send(b"SSH-2.0-OpenSSH_9.2\r\n")
    wire.pause(0.2)


def hanging_up(wire: Wire) -> None:
    """Close, in the middle of a handshake, without having read it."""


def test_who_hangs_up_in_the_middle_of_a_handshake_is_told(bench: Workbench) -> None:
    with HostileServer(hanging_up, scheme="https") as server:
        outcome = attempted(bench.verifier(), server.url)
    assert (outcome.verdict, cause_of(outcome)[0]) == (CONNECT_FAILED, "tls-handshake")


@pytest.mark.parametrize("behave", [answering_anybody, greeting])
def test_a_port_without_tls_is_told(bench: Workbench, behave: Behaviour) -> None:
    with HostileServer(behave, scheme="https") as server:
        outcome = attempted(bench.verifier(), server.url)
    assert (outcome.verdict, cause_of(outcome)[0]) == (CONNECT_FAILED, "no-tls")


# What is called a circle: U17


def test_a_circle_is_called_a_circle(bench: Workbench) -> None:
    outcome = came_of(bench, redirecting_for_ever)
    assert (outcome.verdict, cause_of(outcome)[0]) == (BAD_REDIRECT, "redirect-circle")
    assert "cookie" not in cause_of(outcome)[1]


def test_a_circle_over_several_hops_is_one_too(bench: Workbench) -> None:
    def behave(wire: Wire) -> None:
        there = {"/artifact.tar.gz": "/a", "/a": "/b"}.get(wire.await_request().path, "/a")
        wire.head(FOUND, f"Location: {there}", NOTHING)

    with HostileServer(behave) as server:
        outcome = attempted(bench.verifier(), server.url)
    assert cause_of(outcome)[0] == "redirect-circle"
    assert len(server.requests) == 3


def test_a_circle_that_wants_a_cookie_says_so(bench: Workbench) -> None:
    def behave(wire: Wire) -> None:
        wire.head(FOUND, "Location: /artifact.tar.gz", "Set-Cookie: seen=1", NOTHING)

    outcome = came_of(bench, behave)
    assert cause_of(outcome)[0] == "redirect-circle"
    assert "cookie" in cause_of(outcome)[1]


def test_too_many_hops_are_counted(bench: Workbench) -> None:
    outcome = came_of(bench, redirecting_times(11))
    assert (outcome.verdict, cause_of(outcome)[0]) == (BAD_REDIRECT, "too-many-redirects")


# Pairs of rules


def led(location: str, *fields: str, interim: str = "") -> Behaviour:
    return after(interim, redirecting(location, *fields))


FIRST: dict[str, Callable[[Behaviour], Behaviour]] = {
    "interim": lambda then: after(INTERIM["103"], then),
    "redirected": lambda then: _by(redirecting(" /my 需求.tgz ".encode().decode("latin-1")), then),
    "redirected-after-hints": lambda then: _by(led("\t/b?", interim=INTERIM["103-twice"]), then),
    "two-hops": lambda then: _by(redirecting_times(2), then),
    "busy-before": lambda then: in_turn(answering("HTTP/1.1 403 No", "Retry-After: 0", NOTHING, body=b""), then),
    "many-cookies": lambda then: _by(redirecting("/b", *["Set-Cookie: a=b"] * 90), then),
}
THEN: dict[str, tuple[Behaviour, Verdict]] = {
    "padded-length": (answering(OK, f"Content-Length: {len(BODY)} \t"), REGISTERED),
    "padded-zeros": (answering(OK, CHUNKED, body=b"00" + CHUNK + b"00" + LAST_CHUNK), REGISTERED),
    "rest-as-whole": (breaking_first(NO_REST["200-with-the-rest"]), REGISTERED),
    "refused-rest": (breaking_first(NO_REST["403"]), REGISTERED),
    "part-as-whole": (answering(OK, LENGTH, THE_REST), BAD_RESPONSE),
    "cut-without-a-length": (in_turn(unannounced(BODY[:-9]), unannounced(BODY)), REGISTERED),
    "inwards": (
        answering(FOUND, "Location: http://10.0.0.1:8080/my 需求".encode().decode("latin-1"), NOTHING, body=b""),
        LED_ASTRAY,
    ),
    "nowhere": (answering(FOUND, "Location: /a\\b", NOTHING, body=b""), BAD_REDIRECT),
    "later": (answering("HTTP/1.1 423 Locked", "Retry-After:\t1 ", NOTHING, body=b""), BUSY),
    "missing": (answering("HTTP/1.1 404 Not Found", NOTHING, body=b""), MISSING),
}


def _by(first: Behaviour, then: Behaviour) -> Behaviour:
    """Have *first* redirect, and treat where it leads to by *then*."""

    def behave(wire: Wire) -> None:
        path = wire.asked().path
        leads_on = path in {"/artifact.tar.gz", "/hop/1"}
        (first if leads_on else then)(wire)

    return behave


@pytest.mark.parametrize(("first", "then"), list(product(FIRST, THEN)))
def test_where_two_rules_meet_the_outcome_follows_from_both(bench: Workbench, first: str, then: str) -> None:
    behave, verdict = _fresh(then)
    verifier = bench.verifier(max_attempts=2, retry_base_s=0.01)
    with HostileServer(FIRST[first](behave)) as server:
        registration = queued(verifier, server.url)
        _until_final(verifier, registration)
    ended = now(verifier.store, registration.id)
    failure = ended.failure
    assert (ended.status, failure and failure.code, failure and failure.fault) == verdict


def _fresh(then: str) -> tuple[Behaviour, Verdict]:
    """Return a case that remembers nothing of others."""
    if then == "rest-as-whole":
        return breaking_first(NO_REST["200-with-the-rest"]), REGISTERED
    if then == "refused-rest":
        return breaking_first(NO_REST["403"]), REGISTERED
    if then == "cut-without-a-length":
        return in_turn(unannounced(BODY[:-9]), unannounced(BODY)), REGISTERED
    return THEN[then]


def _until_final(verifier: Running, registration: Registration) -> None:
    def final() -> bool:
        verifier.verify(registration.id)  # type: ignore[attr-defined]  # a Verifying
        return now(verifier.store, registration.id).status.final

    until(final, what="the registration to end")
