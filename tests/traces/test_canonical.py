"""The checker's encoder gives what the contract's encoder gives, without being it."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schema import wire
from schema.events import GatewaySession
from traces.canonical import CanonicalEncoder, NotCanonicalError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.text() | st.binary(max_size=300),
    lambda inner: st.lists(inner, max_size=20),
    max_leaves=60,
)


@settings(max_examples=200, deadline=None)
@given(VALUES)
def test_any_value_is_encoded_as_the_contract_encodes_it(value: object) -> None:
    assert CanonicalEncoder().encode(value) == msgspec.msgpack.encode(value)


@pytest.mark.parametrize("bits", range(65))
def test_integers_take_the_shortest_form_on_both_sides_of_each_bound(bits: int) -> None:
    encoder = CanonicalEncoder()
    for value in (2**bits - 1, 2**bits, -(2**bits), -(2**bits) - 1):
        if -(2**63) <= value < 2**64:
            assert encoder.encode(value) == msgspec.msgpack.encode(value)
        else:
            with pytest.raises(NotCanonicalError):
                encoder.encode(value)


@pytest.mark.parametrize("length", [15, 16, 31, 32, 255, 256, 65_535, 65_536])
def test_headers_take_the_shortest_form(length: int) -> None:
    for value in ("x" * length, b"x" * length, [7] * length):
        assert CanonicalEncoder().encode(value) == msgspec.msgpack.encode(value)


def test_truth_is_not_mistaken_for_a_one_seen_before() -> None:
    encoder = CanonicalEncoder()
    assert encoder.encode([1, 0]) + encoder.encode([True, False]) == b"\x92\x01\x00\x92\xc3\xc2"


def test_float_is_nothing_that_a_record_holds() -> None:
    with pytest.raises(NotCanonicalError, match="float"):
        CanonicalEncoder().encode([1, 1.5])


def test_recomputed_hash_is_the_sealed_one() -> None:
    value, digest = wire.seal(GatewaySession("gateway-1", 17))
    assert CanonicalEncoder().recomputed_hash(value) == digest


def test_altered_content_has_another_hash() -> None:
    value, digest = wire.seal(GatewaySession("gateway-1", 17))
    assert CanonicalEncoder().recomputed_hash(value.replace(b"\x11", b"\x12")) != digest


def test_bytes_that_are_no_msgpack_have_no_hash() -> None:
    assert CanonicalEncoder().recomputed_hash(b"\x01\xc1 and eight bytes more") is None
