"""Settlement on the simulated Kafka and Cassandra: every record settled, whatever fails; nothing beyond a bad one."""

from collections.abc import Iterator

import pytest

from schema.topics import BALANCE_EVENTS, ENGINE_OUTPUTS
from settlement.service import SettlementConfig
from sim.clock import NS_PER_SECOND
from sim.hosts import Incarnation
from tests.settlement.events_for_tests import Events, small_topology
from tests.sim.services.settled_world import SettledWorld

ACTIVE = "SELECT order_id, revision, status FROM active_orders"
NOT_LONG_AGO = 4_000_000_000_000_000_000
"""A time of completion that leaves the finished row its whole day, whatever the date of the run."""
LEDGER = "SELECT user_id, asset_id, ledger_seq FROM balance_ledger"


@pytest.fixture
def world() -> Iterator[SettledWorld]:
    world = SettledWorld(small_topology())
    yield world
    world.close()


@pytest.fixture
def events() -> Events:
    return Events()


def progress(world: SettledWorld, topic: str, partition: int) -> tuple[int, int] | None:
    found = world.rows(
        f"SELECT sequence, next_offset FROM settlement_progress WHERE topic = '{topic}' AND partition_id = {partition}"
    )
    return found[0] if found else None


def test_orders_and_balances_are_settled_then_recorded_then_committed(world: SettledWorld, events: Events) -> None:
    world.settlement("settlement-1")
    world.produce(
        ENGINE_OUTPUTS,
        0,
        events.chain_of_outputs(
            [events.placement(1)], [events.placement(2)], [events.completion(1, updated_at_ns=NOT_LONG_AGO)]
        ),
    )
    world.produce(BALANCE_EVENTS, 1, events.chain_of_balance_events([events.entry(1)], [events.entry(2)], partition=1))
    world.pass_s(15)
    assert sorted(world.rows(ACTIVE)) == [(1, 3, 2), (2, 1, 0)]
    assert sorted(world.rows(LEDGER)) == [(10, 1, 1), (10, 1, 2)]
    assert world.rows("SELECT available, ledger_seq FROM user_balances") == [(20, 2)]
    assert progress(world, ENGINE_OUTPUTS, 0) == (3, 3)
    assert world.committed(ENGINE_OUTPUTS, 0) == 3
    assert world.committed(BALANCE_EVENTS, 1) == 2
    assert world.alarms() == []
    told = [
        (event, fields["order_id"]) for level, event, fields in world.lines if level == "info" and "order_id" in fields
    ]
    assert told.count(("consumed", 1)) == 2
    assert {("row written", 1), ("row written", 2), ("order completed", 1)} <= set(told)


def test_what_was_produced_before_the_first_start_is_settled(world: SettledWorld, events: Events) -> None:
    world.produce(ENGINE_OUTPUTS, 1, events.chain_of_outputs([events.placement(1, symbol_id=2)], partition=1))
    world.settlement("settlement-1")
    world.pass_s(15)
    assert world.rows(ACTIVE) == [(1, 1, 0)]


def test_gap_stops_its_partition_with_one_alarm_and_the_others_go_on(world: SettledWorld, events: Events) -> None:
    world.settlement("settlement-1")
    first, _missing, third = events.chain_of_outputs(
        [events.placement(1)], [events.placement(2)], [events.placement(3)]
    )
    world.produce(ENGINE_OUTPUTS, 0, [first, third])
    world.pass_s(15)
    world.produce(ENGINE_OUTPUTS, 1, events.chain_of_outputs([events.placement(9, symbol_id=2)], partition=1))
    world.pass_s(5)
    assert sorted(world.rows(ACTIVE)) == [(1, 1, 0), (9, 1, 0)]
    ((event, fields),) = world.alarms()
    assert "sequence gap: expected 2, found 3" in event
    assert (fields["topic"], fields["partition"], fields["offset"]) == (ENGINE_OUTPUTS, 0, 1)
    assert world.committed(ENGINE_OUTPUTS, 0) == 1


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda value: value[:-1] + bytes([value[-1] ^ 1]), "undecodable"),
        (lambda value: b"rubbish", "undecodable"),
    ],
)
def test_undecodable_record_stops_its_partition(world: SettledWorld, events: Events, spoil, words: str) -> None:
    good, bad, beyond = events.chain_of_outputs([events.placement(1)], [events.placement(2)], [events.placement(3)])
    world.produce(ENGINE_OUTPUTS, 0, [good, spoil(bad), beyond])
    world.settlement("settlement-1")
    world.pass_s(15)
    assert world.rows(ACTIVE) == [(1, 1, 0)]
    ((event, fields),) = world.alarms()
    assert words in event
    assert fields["offset"] == 1


def test_forked_chain_stops_its_partition(world: SettledWorld, events: Events) -> None:
    first, second = events.chain_of_outputs([events.placement(1)], [events.placement(2)])
    _, other = events.chain_of_outputs([events.placement(7)], [events.placement(8)])
    world.produce(ENGINE_OUTPUTS, 0, [first, other, second])
    world.settlement("settlement-1")
    world.pass_s(15)
    assert world.rows(ACTIVE) == [(1, 1, 0)]
    assert "broken chain" in world.alarms()[0][0]


def test_restart_resumes_behind_what_is_settled_and_settles_the_rest(world: SettledWorld, events: Events) -> None:
    chain = events.chain_of_outputs(*([events.placement(n)] for n in range(1, 9)))
    host = world.settlement("settlement-1")
    world.produce(ENGINE_OUTPUTS, 0, chain[:5])
    world.pass_s(15)
    host.crash()
    world.produce(ENGINE_OUTPUTS, 0, chain[5:])
    world.settlement("settlement-1")
    world.pass_s(30)
    assert len(world.rows(ACTIVE)) == 8
    assert progress(world, ENGINE_OUTPUTS, 0) == (8, 8)
    taken = [fields for _, event, fields in world.lines if event == "partition taken over" and fields["sequence"]]
    assert [(fields["sequence"], fields["offset"]) for fields in taken] == [(5, 5)]


def test_lost_progress_row_means_settling_from_the_beginning_whatever_the_group_says(
    world: SettledWorld, events: Events
) -> None:
    host = world.settlement("settlement-1")
    world.produce(ENGINE_OUTPUTS, 0, events.chain_of_outputs([events.placement(1)], [events.placement(2)]))
    world.pass_s(15)
    assert world.committed(ENGINE_OUTPUTS, 0) == 2
    host.stop()
    world.pass_s(5)
    for table in ("settlement_progress", "active_orders"):
        world.rows(f"TRUNCATE {table}")
    world.settlement("settlement-1")
    world.pass_s(15)
    assert len(world.rows(ACTIVE)) == 2


def test_database_that_is_down_delays_settling_and_loses_nothing(world: SettledWorld, events: Events) -> None:
    world.settlement("settlement-1")
    world.pass_s(10)
    nodes = world.cassandra.nodes[:2]
    for node in nodes:
        world.cassandra.take_down(node)
    world.produce(ENGINE_OUTPUTS, 0, events.chain_of_outputs(*([events.placement(n)] for n in range(1, 30))))
    world.pass_s(30)
    assert world.committed(ENGINE_OUTPUTS, 0) is None
    for node in nodes:
        world.cassandra.bring_up(node)
    world.pass_s(30)
    assert len(world.rows(ACTIVE)) == 29
    assert world.committed(ENGINE_OUTPUTS, 0) == 29
    assert any("will be retried" in event for level, event, _ in world.lines if level == "warning")
    assert world.alarms() == []


def test_crash_in_the_middle_of_a_batch_is_made_good_by_the_next_start(world: SettledWorld, events: Events) -> None:
    chain = events.chain_of_outputs(*([events.placement(n)] for n in range(1, 200)))
    world.produce(ENGINE_OUTPUTS, 0, chain)
    host = world.settlement("settlement-1")
    for _ in range(6_000):
        world.pass_s(0.001)
        if any(event == "consumed" for _, event, _ in world.lines):
            break
    world.pass_s(0.001)
    host.crash()
    assert progress(world, ENGINE_OUTPUTS, 0) is None
    world.settlement("settlement-1")
    world.pass_s(30)
    assert len(world.rows(ACTIVE)) == 199
    assert progress(world, ENGINE_OUTPUTS, 0) == (199, 199)


def test_second_instance_shares_the_partitions_and_takes_over_from_a_crashed_one(
    world: SettledWorld, events: Events
) -> None:
    chain = events.chain_of_outputs(*([events.placement(n)] for n in range(1, 61)))
    other = events.chain_of_outputs(*([events.placement(n, symbol_id=2)] for n in range(101, 161)), partition=1)
    first = world.settlement("settlement-1")
    world.produce(ENGINE_OUTPUTS, 0, chain[:20])
    world.settlement("settlement-2")
    world.produce(ENGINE_OUTPUTS, 0, chain[20:40])
    world.produce(ENGINE_OUTPUTS, 1, other[:30])
    world.pass_s(20)
    first.crash()
    world.produce(ENGINE_OUTPUTS, 0, chain[40:])
    world.produce(ENGINE_OUTPUTS, 1, other[30:])
    world.pass_s(40)
    assert len(world.rows(ACTIVE)) == 120
    assert world.alarms() == []
    assert [world.committed(ENGINE_OUTPUTS, n) for n in (0, 1)] == [60, 60]


def test_rebalances_evictions_and_lost_commits_leave_nothing_unsettled(world: SettledWorld, events: Events) -> None:
    chain = events.chain_of_outputs(*([events.placement(n)] for n in range(1, 101)))
    world.settlement("settlement-1")
    world.settlement("settlement-2")
    world.pass_s(10)
    for start in range(0, 100, 20):
        world.kafka.faults.lose_commits(500_000)
        world.produce(ENGINE_OUTPUTS, 0, chain[start : start + 20])
        if start % 40:
            world.kafka.faults.rebalance("settlement")
        else:
            world.kafka.faults.evict("settlement")
        world.pass_s(3)
    world.kafka.faults.heal()
    world.pass_s(40)
    assert len(world.rows(ACTIVE)) == 100
    assert world.alarms() == []
    assert world.committed(ENGINE_OUTPUTS, 0) == 100


def test_zombie_that_wakes_up_after_it_was_replaced_changes_nothing(world: SettledWorld, events: Events) -> None:
    chain = events.chain_of_outputs(
        [events.placement(1)], [events.update(1)], [events.completion(1, updated_at_ns=NOT_LONG_AGO)]
    )
    zombie = world.settlement("settlement-1")
    world.produce(ENGINE_OUTPUTS, 0, chain[:1])
    world.pass_s(15)
    zombie.pause()
    world.settlement("settlement-2")
    world.produce(ENGINE_OUTPUTS, 0, chain[1:])
    world.pass_s(40)
    assert world.rows(ACTIVE) == [(1, 3, 2)]
    zombie.resume()
    world.pass_s(30)
    assert world.rows(ACTIVE) == [(1, 3, 2)]
    assert progress(world, ENGINE_OUTPUTS, 0) == (3, 3)
    assert world.alarms() == []


def test_stop_finishes_the_writes_in_hand_and_leaves_the_group(world: SettledWorld, events: Events) -> None:
    host = world.settlement("settlement-1")
    world.pass_s(10)
    world.produce(ENGINE_OUTPUTS, 0, events.chain_of_outputs(*([events.placement(n)] for n in range(1, 50))))
    host.stop()
    world.pass_s(12)
    assert not host.is_up
    settled = progress(world, ENGINE_OUTPUTS, 0)
    assert settled is not None
    sequence, next_offset = settled
    assert len(world.rows(ACTIVE)) == sequence > 0
    assert world.committed(ENGINE_OUTPUTS, 0) == next_offset


def test_retention_that_passes_a_slow_consumer_is_an_alarm(world: SettledWorld, events: Events) -> None:
    chain = events.chain_of_outputs(*([events.placement(n)] for n in range(1, 11)))
    host = world.settlement("settlement-1")
    world.produce(ENGINE_OUTPUTS, 0, chain[:2])
    world.pass_s(15)
    host.crash()
    world.produce(ENGINE_OUTPUTS, 0, chain[2:])
    world.kafka.faults.pass_retention(ENGINE_OUTPUTS, 0, 3)
    world.settlement("settlement-1")
    world.pass_s(30)
    assert len(world.rows(ACTIVE)) == 2
    ((event, fields),) = world.alarms()
    assert "not in the log" in event
    assert fields["offset"] == 2


def test_retention_that_took_what_was_settled_but_not_committed_stops_nothing(
    world: SettledWorld, events: Events
) -> None:
    chain = events.chain_of_outputs(*([events.placement(n)] for n in range(1, 11)))
    host = world.settlement("settlement-1")
    world.produce(ENGINE_OUTPUTS, 0, chain[:2])
    world.pass_s(15)
    world.kafka.faults.lose_commits(1_000_000)
    world.produce(ENGINE_OUTPUTS, 0, chain[2:8])
    world.pass_s(5)
    host.crash()
    world.kafka.faults.heal()
    assert world.committed(ENGINE_OUTPUTS, 0) == 2
    assert progress(world, ENGINE_OUTPUTS, 0) == (8, 8)
    world.produce(ENGINE_OUTPUTS, 0, chain[8:])
    world.kafka.faults.pass_retention(ENGINE_OUTPUTS, 0, 4)
    world.settlement("settlement-1")
    world.pass_s(30)
    assert world.alarms() == []
    assert len(world.rows(ACTIVE)) == 10


def test_finished_row_is_gone_a_day_later_and_the_live_one_stays(world: SettledWorld, events: Events) -> None:
    def now_ns(incarnation):
        async def read():
            return incarnation.host.wall.now_ns()

        return read()

    now = world.run(now_ns)
    world.settlement("settlement-1")
    world.produce(
        ENGINE_OUTPUTS,
        0,
        events.chain_of_outputs(
            [events.placement(1, updated_at_ns=now), events.placement(2, updated_at_ns=now)],
            [events.completion(1, updated_at_ns=now)],
        ),
    )
    world.pass_s(15)
    assert len(world.rows(ACTIVE)) == 2
    for host in world.world.hosts.values():
        if host.is_up:
            host.crash()
    world.clock.run_until(world.clock.now + 25 * 3600 * NS_PER_SECOND)
    assert world.rows(ACTIVE) == [(2, 1, 0)]
    assert [row[0] for row in world.rows("SELECT order_id FROM order_lookup")] == [2]
    assert len(world.rows("SELECT order_id FROM order_history")) == 2


def test_whole_log_settled_again_a_day_later_brings_no_finished_order_back(world: SettledWorld, events: Events) -> None:
    async def now_ns(incarnation: Incarnation) -> int:
        return incarnation.host.wall.now_ns()

    now = world.run(now_ns)
    host = world.settlement("settlement-1")
    world.produce(
        ENGINE_OUTPUTS,
        0,
        events.chain_of_outputs(
            [events.placement(1, updated_at_ns=now), events.placement(2, updated_at_ns=now)],
            [events.update(1, updated_at_ns=now)],
            [events.completion(1, updated_at_ns=now)],
        ),
    )
    world.pass_s(15)
    host.crash()
    world.clock.run_until(world.clock.now + 25 * 3600 * NS_PER_SECOND)
    world.rows("TRUNCATE settlement_progress")
    world.settlement("settlement-1", SettlementConfig(chunk_records=1))
    seen = set()
    while progress(world, ENGINE_OUTPUTS, 0) != (3, 3):
        seen |= set(world.rows(ACTIVE))
    # Written again, the finished row shows for the one second that a time to live has at least; the live ones never.
    assert seen <= {(2, 1, 0), (1, 3, 2)}
    world.pass_s(2)
    assert world.rows(ACTIVE) == [(2, 1, 0)]
    assert [row[0] for row in world.rows("SELECT order_id FROM order_lookup")] == [2]


def test_same_seed_same_lines(events: Events) -> None:
    def lines() -> list[object]:
        world = SettledWorld(small_topology(), seed=5)
        world.settlement("settlement-1")
        world.settlement("settlement-2")
        world.produce(ENGINE_OUTPUTS, 0, events.chain_of_outputs(*([events.placement(n)] for n in range(1, 30))))
        world.pass_s(20)
        world.close()
        return [*world.lines, world.clock.now]

    assert lines() == lines()
