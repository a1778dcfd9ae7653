"""Nothing secret leaves in a log line: no query, no userinfo, no token of ours."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.logs import without_secrets
from shared.store.tokens import mint


def _scrubbed(value: object) -> object:
    return without_secrets(None, "info", {"event": value})["event"]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("https://host.example/a.tar.gz", "https://host.example/a.tar.gz"),
        ("https://host.example/a?sig=S3CRET", "https://host.example/a"),
        ("https://host.example?sig=S3CRET", "https://host.example"),
        ("https://host.example/a#S3CRET", "https://host.example/a"),
        ("https://host.example/a?b#S3CRET", "https://host.example/a"),
        ("https://user:S3CRET@host.example:8443/a", "https://host.example:8443/a"),
        ("https://S3CRET@host.example", "https://host.example"),
        ("https://:S3CRET@host.example/", "https://host.example/"),
        ("redis://:S3CRET@queue.example:6379/0", "redis://queue.example:6379/0"),
        ("postgresql+psycopg://me:S3CRET@db.example/x", "postgresql+psycopg://db.example/x"),
        ("HTTPS://USER:S3CRET@HOST.EXAMPLE/A?S3CRET", "HTTPS://HOST.EXAMPLE/A"),
        ("got <https://host.example/a?S3CRET> twice", "got <https://host.example/a> twice"),
        ("url='https://host.example/a?S3CRET', n=1", "url='https://host.example/a n=1"),
        ('{"url": "https://u:S3CRET@host.example/a?S3CRET"}', '{"url": "https://host.example/a"}'),
        ("https://a.example/?S3CRET https://b.example/?S3CRET", "https://a.example/ https://b.example/"),
        ("Bearer prg_S3CRETS3CRET.", "Bearer prg_***."),
        ("what? me@host.example #1", "what? me@host.example #1"),
    ],
)
def test_a_text_keeps_scheme_host_and_path_and_loses_the_rest(text: str, left: str) -> None:
    assert _scrubbed(text) == left


@pytest.mark.parametrize("value", [0, 1, -2.5, True, None])
def test_a_number_stays_as_it_is(value: object) -> None:
    assert _scrubbed(value) is value


@pytest.mark.parametrize(
    "value",
    [
        ValueError("https://host.example/?S3CRET"),
        {"https://host.example/?S3CRET"},
        b"https://host.example/?S3CRET",
        [("https://host.example/?S3CRET",)],
        {"a": {"b": ["https://u:S3CRET@host.example"]}},
        {"a": ValueError("prg_S3CRETS3CRET")},
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_secret_does_not_survive_inside_another_value(value: object) -> None:
    left = repr(_scrubbed(value))
    assert "S3CRET" not in left
    assert "host.example" in left or "prg_***" in left


def test_lists_and_mappings_keep_their_shape() -> None:
    assert _scrubbed({"a": [1, "x"], "b": ("y", {"c": None})}) == {"a": [1, "x"], "b": ["y", {"c": None}]}


_SECRET = st.text("ABCDEFGHJKLMNPQR0123456789-._~!$&()*+,;=:%", min_size=1, max_size=20).map("S3CRET{}".format)
_PLACE = st.from_regex(r"[a-z]{1,8}\.example(:[1-9][0-9]{1,3})?(/[a-z0-9.%]{1,8}){0,3}/?", fullmatch=True)
_URLS = st.builds(
    "{}://{}{}{}".format,
    st.sampled_from(["https", "http", "HTTP", "redis", "postgresql+psycopg", "sentinel"]),
    st.just("") | st.builds("{}@".format, _SECRET) | st.builds("user:{}@".format, _SECRET),
    _PLACE,
    st.just("")
    | st.builds("?{}".format, _SECRET)
    | st.builds("#{}".format, _SECRET)
    | st.builds("?a={}#b".format, _SECRET),
)
_TOKENS = st.builds(lambda: mint().text)
_TEXTS = st.lists(_URLS | st.sampled_from(["fetched", "from", "ü", "a=b", "'", '"', "(", "\n"]), max_size=4).map(
    " ".join
)
_VALUES: st.SearchStrategy[object] = st.recursive(
    _TEXTS | _TEXTS.map(ValueError) | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=8,
)


@settings(deadline=None, max_examples=300)
@given(_VALUES)
def test_no_query_or_userinfo_survives_in_any_value_however_deep(value: object) -> None:
    assert "S3CRET" not in repr(_scrubbed(value))


@settings(deadline=None)
@given(_PLACE, _TOKENS)
def test_no_token_survives_wherever_it_stands(place: str, token: str) -> None:
    for text in (token, f"Bearer {token}", f"https://{token}@{place}", f"https://{place}/{token}"):
        assert token[4:] not in repr(_scrubbed({"nested": [text]}))


@settings(deadline=None)
@given(_PLACE)
def test_the_place_survives(place: str) -> None:
    assert _scrubbed(f"https://user:S3CRET@{place}?S3CRET") == f"https://{place}"


@pytest.mark.parametrize(
    "text",
    [
        "https://h/?a='b'&sig=hunter2",
        "Max retries exceeded with url: /f?sig=hunter2 (Caused by ...)",
        "redis://:hunter2@a;redis://:hunter2@b",
        "https://h/a,https://u:hunter2@b/",
        "https://a/https://u:hunter2@h/",
        "https://u:p@hunter2@h/x",
        "https://u:pa/hunter2@h/x",
        "https://u:'hunter2'@h/x",
        "_https://u:hunter2@h/",
        "9https://u:hunter2@h/?q=hunter2",
        "https://h/path#hunter2",
        "https://h/p?x=1#hunter2",
    ],
)
def test_no_way_to_write_a_secret_gets_through(text: str) -> None:
    assert "hunter2" not in str(without_secrets(None, "info", {"event": text, "deep": [{"k": text}], text: 1}))


def test_two_tokens_run_together_are_both_hidden() -> None:
    token = "prg_" + "a1" * 29
    assert "a1" not in str(without_secrets(None, "info", {"event": token + token}))


@pytest.mark.timeout(60)  # a pattern that looks back takes minutes for these
def test_scrubbing_takes_no_longer_for_strange_texts() -> None:
    for text in ("a+" * 50_000, "a." * 50_000, "://" * 30_000, "?" * 90_000, "@" * 90_000):
        without_secrets(None, "info", {"event": text})


def test_a_log_that_cannot_be_written_ends_nothing() -> None:
    """A disk is full, or nobody reads any more: what was at it goes on."""
    told = "configure_logs(service='x'); get_logger('x').warning('y'); print('on')"
    command = [sys.executable, "-c", f"from shared.logs import configure_logs, get_logger; {told}"]
    with Path("/dev/full").open("w") as full:
        buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
        done = subprocess.run(command, stderr=full, stdout=subprocess.PIPE, text=True, check=True, env=buffered)
    assert done.stdout == "on\n"
