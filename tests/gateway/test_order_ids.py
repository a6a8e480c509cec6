"""Order ids are given out once."""

import asyncio
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.order_ids import OrderIds, OrderIdsExhausted, open_session
from schema.identifiers import INT64_MAX
from schema.topics import GATEWAY_SESSIONS
from schema.wire import GATEWAY_SESSION


class FakeProducer:
    """Acknowledges with the given offsets."""

    def __init__(self, *offsets):
        self.offsets = list(offsets)
        self.sent = []

    async def send_and_wait(self, topic, value=None, key=None, partition=None, timestamp_ms=None):
        self.sent.append((topic, partition, GATEWAY_SESSION.decode(value)))
        return SimpleNamespace(offset=self.offsets.pop(0))


@given(st.lists(st.tuples(st.integers(0, 2**31 - 2), st.integers(1, 20)), max_size=6, unique_by=lambda each: each[0]))
def test_sessions_never_share_an_id_and_every_id_fits_its_column(sessions):
    given_out = []
    for session, count in sessions:
        ids = OrderIds(session)
        given_out += [ids.next() for _ in range(count)]
    assert len(set(given_out)) == len(given_out)
    assert all(0 < order_id <= INT64_MAX for order_id in given_out)


def test_ids_of_a_session_go_up_by_one_from_its_first():
    ids = OrderIds(0)
    assert [ids.next(), ids.next()] == [(1 << 32) + 1, (1 << 32) + 2]


def test_session_that_has_no_id_left_says_so():
    ids = OrderIds(3)
    ids._counter = 2**32 - 2
    assert ids.next() == (4 << 32) + 2**32 - 1
    with pytest.raises(OrderIdsExhausted):
        ids.next()


@pytest.mark.parametrize("session", [-1, 2**31 - 1])
def test_number_that_is_no_session_is_refused(session):
    with pytest.raises(ValueError, match="session number"):
        OrderIds(session)


def test_session_number_is_the_offset_of_the_gateways_record():
    producer = FakeProducer(41)
    ids = asyncio.run(open_session(producer, "gateway-1", 5))
    assert ids.session == 41
    ((topic, partition, record),) = producer.sent
    assert (topic, partition, record.gateway, record.started_at_ns) == (GATEWAY_SESSIONS, 0, "gateway-1", 5)


def test_acknowledgement_without_an_offset_opens_no_session():
    producer = FakeProducer(-1, 7)
    assert asyncio.run(open_session(producer, "gateway-1", 5)).session == 7
    assert len(producer.sent) == 2
