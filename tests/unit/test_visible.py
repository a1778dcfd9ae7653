"""What the light client shows hides at least what the registry calls hidden, and changes nothing that is seen."""

import sys

from plugin_registry_client.command.visible import visible

from shared.characters import visible as as_the_registry_shows


def test_whatever_the_registry_calls_hidden_is_shown_by_its_number() -> None:
    for number in range(sys.maxunicode + 1):
        character = chr(number)
        told = as_the_registry_shows(character)
        if told != character:
            assert visible(f"a{character}b") == f"a{told}b"


def test_what_is_seen_stays_as_it_is() -> None:
    text = "nginx-logs 2.1.0 — Größe, 日本語, עברית, 😀 [####]"
    assert visible(text) == text
