"""The form of an access token, and which names it allows. What the store does is tested with the store."""

import string
from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.store.tokens import Credential, Token, mint, parse

LETTERS = string.digits + string.ascii_letters
KNOWN = "prg_" + "a" * 12 + "B" * 40 + "4nMjHt"

_credentials = st.builds(
    Credential,
    id=st.text(LETTERS, min_size=12, max_size=12),
    secret=st.text(LETTERS, min_size=40, max_size=40),
)


def _token(*names: str) -> Token:
    return Token("id", "label", frozenset(), names, datetime(2026, 1, 15, tzinfo=UTC), None, None)


def test_a_minted_token_reads_back() -> None:
    credential = mint()
    assert parse(credential.text) == credential
    assert credential.text.startswith("prg_")
    assert len(credential.text) == 62


def test_no_two_minted_tokens_share_an_id_or_a_secret() -> None:
    minted = [mint() for _ in range(100)]
    assert len({credential.id for credential in minted}) == len({credential.secret for credential in minted}) == 100


def test_the_form_of_a_token_never_changes() -> None:
    credential = Credential("a" * 12, "B" * 40)
    assert credential.text == KNOWN
    assert parse(KNOWN) == credential


@settings(deadline=None)
@given(_credentials)
def test_every_credential_reads_back_from_its_text(credential: Credential) -> None:
    assert parse(credential.text) == credential


@settings(deadline=None, max_examples=300)
@given(_credentials, st.integers(0, 61), st.sampled_from(LETTERS))
def test_a_token_with_one_changed_letter_is_refused(credential: Credential, position: int, letter: str) -> None:
    text = credential.text
    changed = text[:position] + letter + text[position + 1 :]
    assert changed == text or parse(changed) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "prg_",
        KNOWN[:-1],
        KNOWN + "0",
        Credential("a" * 12, "B" * 39).text,
        Credential("a" * 12, "B" * 41).text,
        KNOWN + "\n",
        " " + KNOWN,
        "Bearer " + KNOWN,
        KNOWN.upper(),
        KNOWN.removeprefix("prg_"),
        KNOWN.replace("prg_", "prh_"),
        KNOWN.replace("a", "\uff41"),
        KNOWN.replace("a", "-"),
    ],
    ids=ascii,
)
def test_what_has_not_the_form_of_a_token_is_none(text: str) -> None:
    assert parse(text) is None


def test_a_token_without_names_allows_any_name() -> None:
    assert _token().may_use_name("anything at all")


@pytest.mark.parametrize(
    ("pattern", "name", "allowed"),
    [
        ("nginx-*", "nginx-log", True),
        ("nginx-*", "Nginx Log", True),
        ("NGINX_*", "nginx.log", True),
        ("nginx-*", "nginx-", True),
        ("nginx-*", "nginx", False),
        ("nginx-*", "xnginx-log", False),
        ("nginx-*", "apache-log", False),
        ("nginx", "NGINX", True),
        ("nginx", "nginx-log", False),
        ("nginx log", "nginx___LOG", True),
        ("log-?", "log-7", True),
        ("log-?", "log-77", False),
        ("log-[0-4]", "log-3", False),
        ("log-[0-4]", "log-5", False),
        ("*", "anything", True),
        ("", "anything", False),
    ],
)
def test_a_pattern_allows_a_name_in_any_spelling_of_it(pattern: str, name: str, allowed: bool) -> None:
    assert _token(pattern).may_use_name(name) is allowed


def test_one_pattern_of_several_is_enough() -> None:
    token = _token("nginx-*", "apache-*")
    assert token.may_use_name("apache-log")
    assert not token.may_use_name("caddy-log")
