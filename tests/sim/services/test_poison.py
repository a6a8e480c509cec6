"""Input that cannot be what was written stops its partition with an alarm, and only that (design 4.4.2)."""

from collections.abc import Callable

import msgspec
import pytest

from schema import wire
from schema.codes import EntryKind, Side
from schema.events import DEAD_LETTER_BYTES_MAX, FundEntry, FundUpdate, ValidatedOrder
from schema.identifiers import OrderId
from schema.topics import BALANCE_EVENTS, DEAD_LETTERS, ENGINE_OUTPUTS, FUND_UPDATES, ORDER_REQUESTS, VALIDATED_ORDERS
from sim.kafka.faults import GARBAGE
from tests.engine.exchange_for_tests import ETH_USD, USD, cancel, deposit, place, users_of
from tests.sim.services.service_world import ServiceWorld
from tests.sim.services.traffic import deposits, orders

MakeWorld = Callable[..., ServiceWorld]
ALARM = "partition stopped"


def validated(link_seq: int, order_id: int) -> bytes:
    return wire.encode(ValidatedOrder(0, link_seq, link_seq, place(order_id, Side.BUY, 5, 1)))


@pytest.mark.parametrize(
    "poison",
    [b"garbage", validated(5, 5), validated(2, 5), wire.encode(deposit(5)), validated(3, 3)[:-1]],
    ids=["garbage", "link-gap", "link-doubled", "another-kind", "torn"],
)
def test_poison_stops_the_engines_partition_behind_what_was_before_it(world: ServiceWorld, poison: bytes) -> None:
    world.send(VALIDATED_ORDERS, [(0, validated(1, 1)), (0, validated(2, 2)), (0, poison), (0, validated(3, 4))])
    world.matching()
    world.until(lambda: bool(world.said(ALARM)))
    world.pass_s(20)
    assert [output.input_offset for output in world.outputs(0)] == [0, 1]
    (alarm,) = world.said(ALARM, "critical")
    assert (alarm["topic"], alarm["partition"], alarm["offset"]) == (VALIDATED_ORDERS, 0, 2)


def test_the_other_partitions_go_on(world: ServiceWorld) -> None:
    world.send(VALIDATED_ORDERS, [(0, b"garbage")])
    world.matching()
    world.until(lambda: bool(world.said(ALARM)))
    other = msgspec.structs.replace(place(9), symbol_id=ETH_USD.symbol_id)
    world.send(VALIDATED_ORDERS, [(1, wire.encode(ValidatedOrder(0, 1, 1, other)))])
    world.until(lambda: len(world.outputs(1)) == 1)
    assert world.outputs(0) == []


def test_the_next_owner_alarms_at_the_same_place(world: ServiceWorld) -> None:
    world.send(VALIDATED_ORDERS, [(0, validated(1, 1)), (0, b"garbage")])
    host = world.matching()
    world.until(lambda: bool(world.said(ALARM)))
    host.stop()
    world.until(lambda: not host.is_up)
    host.restart()
    world.until(lambda: len(world.said(ALARM)) == 2)
    assert {line["offset"] for line in world.said(ALARM)} == {1}
    assert len(world.outputs(0)) == 1


def test_a_fund_update_that_makes_funds_negative_stops_the_partition(world: ServiceWorld) -> None:
    user = users_of(world.topology, 1, 1)[0]
    taken = FundEntry(OrderId(1), USD.asset_id, int(EntryKind.CREDIT), -5, 0)
    bad = FundUpdate(0, 1, 1, 1, user, "", 0, 0, OrderId(0), (taken,))
    world.send(FUND_UPDATES, [(1, wire.encode(bad))])
    world.ubscore()
    world.until(lambda: bool(world.said(ALARM)))
    world.ask(*deposits(world.topology))
    world.pass_s(10)
    (alarm,) = world.said(ALARM, "critical")
    assert (alarm["topic"], alarm["partition"], alarm["offset"]) == (FUND_UPDATES, 1, 0)
    assert world.balance_events(1) == []
    assert len(world.balance_events(0)) == len(deposits(world.topology)) // 2


def test_a_request_that_does_not_decode_goes_to_the_dead_letters_and_the_service_goes_on(world: ServiceWorld) -> None:
    user = users_of(world.topology, 0, 1)[0]
    world.send(
        ORDER_REQUESTS,
        [(0, b"garbage"), (0, b"x" * 100_000), (0, wire.encode(deposit(5, user=user)))],
    )
    world.ubscore()
    world.until(lambda: len(world.balance_events(0)) == 3)
    letters = [wire.DEAD_LETTER.decode(value) for value in world.values(DEAD_LETTERS)]
    assert [(each.topic, each.partition, each.offset) for each in letters] == [
        (ORDER_REQUESTS, 0, 0),
        (ORDER_REQUESTS, 0, 1),
    ]
    assert letters[0].value == b"garbage"
    assert letters[0].reason
    assert letters[1].value == b"x" * DEAD_LETTER_BYTES_MAX
    assert [event.response is None for event in world.balance_events(0)] == [True, True, False]
    assert world.said(ALARM) == []


def test_a_record_that_was_altered_in_the_output_topic_stops_the_recovery(world: ServiceWorld) -> None:
    world.cluster.faults.alter_next(BALANCE_EVENTS, 0, GARBAGE)
    host = world.ubscore()
    world.ask(*deposits(world.topology))
    world.until(lambda: len(world.values(BALANCE_EVENTS, 0)) > 0)
    host.crash()
    host.restart()
    world.until(lambda: bool(world.said(ALARM)))
    before = len(world.values(BALANCE_EVENTS, 0))
    world.ask(*orders(world.topology, 10))
    world.pass_s(10)
    (alarm,) = world.said(ALARM, "critical")
    assert (alarm["topic"], alarm["partition"]) == (BALANCE_EVENTS, 0)
    assert len(world.values(BALANCE_EVENTS, 0)) == before
    assert len(world.balance_events(1)) > 0


def test_input_that_retention_has_deleted_stops_the_partition(world: ServiceWorld) -> None:
    world.send(VALIDATED_ORDERS, [(0, validated(1, 1))])
    host = world.matching()
    world.until(lambda: len(world.outputs(0)) == 1)
    host.crash()
    world.send(VALIDATED_ORDERS, [(0, validated(number, number)) for number in range(2, 10)])
    world.cluster.faults.pass_retention(VALIDATED_ORDERS, 0, keep_records=2)
    host.restart()
    world.until(lambda: bool(world.said(ALARM)))
    world.pass_s(10)
    (alarm,) = world.said(ALARM, "critical")
    assert (alarm["topic"], alarm["partition"], alarm["offset"]) == (VALIDATED_ORDERS, 0, 1)
    assert len(world.outputs(0)) == 1


def test_an_output_log_that_does_not_begin_at_one_stops_the_recovery(world: ServiceWorld) -> None:
    world.send(VALIDATED_ORDERS, [(0, validated(number, number)) for number in range(1, 6)])
    host = world.matching()
    world.until(lambda: len(world.outputs(0)) == 5)
    host.crash()
    world.cluster.faults.pass_retention(ENGINE_OUTPUTS, 0, keep_records=3)
    host.restart()
    world.until(lambda: bool(world.said(ALARM)))
    (alarm,) = world.said(ALARM, "critical")
    assert (alarm["topic"], alarm["partition"]) == (ENGINE_OUTPUTS, 0)


def test_poison_between_good_requests_of_one_batch_answers_the_good_ones_before_it(make_world: MakeWorld) -> None:
    world = make_world(user_partitions=1)
    world.send(ORDER_REQUESTS, [(0, wire.encode(deposit(10_000)))])
    world.ask(place(1), cancel(1))
    good = FundUpdate(0, 1, 1, 1, users_of(world.topology, 0, 1)[0], "", 0, 0, OrderId(0), ())
    world.send(FUND_UPDATES, [(0, wire.encode(good)), (0, b"garbage")])
    world.ubscore()
    world.until(lambda: bool(world.said(ALARM)))
    taken = [(event.input_topic, event.input_offset) for event in world.balance_events(0)]
    assert (FUND_UPDATES, 0) in taken
    assert (FUND_UPDATES, 1) not in taken
