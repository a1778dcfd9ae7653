"""Our tables against two other libraries': whatever either refuses, we refuse."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from itertools import chain

import pytest
from AntiSSRF.ipaddress_ranges import IPAddressRanges
from hypothesis import given, settings
from hypothesis import strategies as st
from ssrfguard import DEFAULT_DENIED

from shared.egress import FORBIDDEN_V4, FORBIDDEN_V6, Egress
from shared.errors import ForbiddenAddress

Network = IPv4Network | IPv6Network
THEIRS: list[Network] = [
    *(ip_network(block) for block in IPAddressRanges.recommended_latest),
    *(block.network for block in DEFAULT_DENIED.blocks),  # those included that it permits: all are special
]


def refused(address: object) -> bool:
    try:
        Egress().check_address(str(address))
    except ForbiddenAddress:
        return True
    return False


@pytest.mark.parametrize("block", THEIRS, ids=str)
def test_each_block_of_theirs_is_refused_from_end_to_end(block: Network) -> None:
    step = max(1, block.num_addresses // 64)
    for offset in chain(range(0, block.num_addresses, step), [block.num_addresses - 1]):
        assert refused(block[offset]), block[offset]


@settings(max_examples=2000, deadline=None)
@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_no_address_that_they_refuse_is_allowed(address: IPv4Address | IPv6Address) -> None:
    if any(address.version == block.version and address in block for block in THEIRS):
        assert refused(address)


@settings(max_examples=1000, deadline=None)
@given(st.ip_addresses(v=4))
def test_a_public_address_is_not_refused(address: IPv4Address) -> None:
    theirs = any(address in block for block in THEIRS if isinstance(block, IPv4Network))
    ours = any(address in block for block in FORBIDDEN_V4)
    assert refused(address) == ours
    if not theirs and not ours:
        assert not refused(address)


@pytest.mark.parametrize("block", [*FORBIDDEN_V4, *FORBIDDEN_V6], ids=str)
def test_we_refuse_nothing_that_neither_of_them_knows(block: Network) -> None:
    assert any(
        block.version == other.version and block.subnet_of(other)  # type: ignore[arg-type]  # versions are equal
        for other in THEIRS
    )
