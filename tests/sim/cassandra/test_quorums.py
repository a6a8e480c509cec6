"""Replicas, consistency levels, hints, read repair, time-outs: what of a write is where, and who sees it."""

from __future__ import annotations

from contextlib import suppress

import pytest
from cassandra import ConsistencyLevel as CL
from cassandra import InvalidRequest, OperationTimedOut, ReadTimeout, Unavailable, WriteTimeout, WriteType
from cassandra.cluster import NoHostAvailable
from cassandra.policies import FallthroughRetryPolicy
from cassandra.protocol import OverloadedErrorMessage
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as hs

from sim.clock import NS_PER_MS, NS_PER_SECOND


@pytest.fixture
def table(world):
    world.run("CREATE TABLE t (p int PRIMARY KEY, v int) WITH read_repair = 'BLOCKING'")
    return world


def holders(world, p=1):
    """The names of the nodes that store a row of that key."""
    world.cluster.is_quiet()  # lets what is due arrive
    return [name for name, rows in world.cluster.dump("t", "ks").items() if any(key == (p,) for key, _, _ in rows)]


def insert(world, v=1, p=1, consistency=CL.QUORUM, timestamp=None):
    using = "" if timestamp is None else f" USING TIMESTAMP {timestamp}"
    return world.run(f"INSERT INTO t (p, v) VALUES ({p}, {v}){using}", consistency=consistency)


def read(world, p=1, consistency=CL.QUORUM):
    return [row[0] for row in world.run("SELECT v FROM t WHERE p = %s", (p,), consistency=consistency)]


def test_write_reaches_all_replicas(table):
    insert(table)
    table.wait_s(1)
    assert holders(table) == ["cassandra-1", "cassandra-2", "cassandra-3"]


def test_fewer_replicas_than_nodes(make_world):
    world = make_world(nodes=5, factor=3)
    world.run("CREATE TABLE t (p int PRIMARY KEY, v int)")
    for p in range(12):
        insert(world, p=p, v=p)
    world.wait_s(1)
    assert all(len(holders(world, p)) == 3 for p in range(12))
    assert [read(world, p) for p in range(12)] == [[p] for p in range(12)]
    assert world.run("SELECT count(*) FROM t") == [(12,)]


def test_unavailable_when_too_few_replicas_are_up(table):
    one, two, _ = table.cluster.nodes
    table.cluster.take_down(one)
    insert(table)
    table.cluster.take_down(two)
    with pytest.raises(NoHostAvailable) as all_tried:  # the default policy goes on to hosts that are down
        insert(table, v=2)
    assert isinstance(all_tried.value.errors["cassandra-3"], Unavailable)
    table.session.cluster.default_retry_policy = FallthroughRetryPolicy()
    with pytest.raises(Unavailable) as caught:
        insert(table, v=2)
    assert (caught.value.required_replicas, caught.value.alive_replicas) == (2, 1)
    assert read(table, consistency=CL.ONE) == [1]
    with pytest.raises(Unavailable):
        read(table)


def test_no_host_available_when_all_are_down(table):
    for node in table.cluster.nodes:
        table.cluster.take_down(node)
    with pytest.raises(NoHostAvailable):
        insert(table)


def test_hint_brings_a_returned_node_up_to_date(table):
    node = table.cluster.nodes[2]
    table.cluster.take_down(node)
    insert(table)
    assert holders(table) == ["cassandra-1", "cassandra-2"]
    assert not table.cluster.is_quiet()
    table.cluster.bring_up(node)
    table.wait_s(11)
    assert holders(table) == ["cassandra-1", "cassandra-2", "cassandra-3"]
    assert table.cluster.struck["hint_replayed"] == 1


def test_node_that_two_take_down_is_down_until_both_bring_it_back_and_has_no_hints_when_one_wants_none(table):
    node = table.cluster.nodes[2]
    end_long = table.cluster.take_down(node, noticed_after_ns=2 * NS_PER_SECOND)
    assert (node.is_up, node.is_known_up, node.keeps_hints) == (False, True, True)
    end_short = table.cluster.take_down(node, hints=False)
    assert (node.is_up, node.is_known_up, node.keeps_hints) == (False, False, False)
    end_short()
    assert (node.is_up, node.is_known_up, node.keeps_hints) == (False, False, True)
    end_long()
    assert (node.is_up, node.is_known_up, node.keeps_hints) == (True, True, True)
    assert table.cluster.nodes_down == 0


def test_without_hints_a_returned_node_stays_behind_until_a_read_repairs_it(table):
    node = table.cluster.nodes[2]
    table.cluster.take_down(node, hints=False)
    insert(table)
    table.cluster.bring_up(node)
    table.wait_s(60)
    assert holders(table) == ["cassandra-1", "cassandra-2"]
    assert read(table, consistency=CL.ALL) == [1]
    table.wait_s(1)
    assert holders(table) == ["cassandra-1", "cassandra-2", "cassandra-3"]


def test_read_repair_can_be_switched_off(world):
    world.run("CREATE TABLE t (p int PRIMARY KEY, v int) WITH read_repair = 'NONE'")
    node = world.cluster.nodes[2]
    world.cluster.take_down(node, hints=False)
    insert(world)
    world.cluster.bring_up(node)
    assert read(world, consistency=CL.ALL) == [1]
    world.wait_s(1)
    assert holders(world) == ["cassandra-1", "cassandra-2"]


def test_read_repair_carries_deletions(table):
    insert(table, timestamp=1)
    table.wait_s(1)
    node = table.cluster.nodes[2]
    table.cluster.take_down(node, hints=False)
    table.run("DELETE FROM t USING TIMESTAMP 2 WHERE p = 1")
    table.cluster.bring_up(node)
    assert read(table, consistency=CL.ALL) == []
    table.wait_s(1)
    assert read(table, consistency=CL.ALL) == []
    assert table.cluster.struck["read_repair"] == 1


def test_stale_read_at_one(table):
    insert(table, v=1, timestamp=1)
    table.wait_s(1)
    node = table.cluster.nodes[2]
    table.cluster.take_down(node, hints=False)
    insert(table, v=2, timestamp=2)
    table.cluster.bring_up(node)
    seen = [table.session.execute("SELECT v FROM t WHERE p = 1", host=node) for _ in range(1)]
    assert [row[0] for row in seen[0]] == [2]  # QUORUM
    table.cluster.take_down(node, hints=False)
    insert(table, v=3, timestamp=3)
    table.cluster.bring_up(node)
    table.session.default_consistency_level = CL.ONE
    assert [row[0] for row in table.session.execute("SELECT v FROM t WHERE p = 1", host=node)] == [2]


@pytest.mark.parametrize(("applied", "where"), [("none", 0), ("some", 1), ("all", 3)])
def test_write_time_out_with_the_write_applied_on(table, applied, where):
    table.cluster.faults.arm(f"write_timeout_{applied}", times=1)
    begun = table.clock.now
    with pytest.raises(WriteTimeout) as caught:
        insert(table)
    assert 2 * NS_PER_SECOND <= table.clock.now - begun < 3 * NS_PER_SECOND
    assert caught.value.write_type == WriteType.SIMPLE
    assert caught.value.required_responses == 2
    assert caught.value.received_responses < 2
    table.wait_s(1)
    assert len(holders(table)) == where
    assert table.cluster.struck == {f"write_timeout_{applied}": 1}


def test_node_that_is_gone_unnoticed_makes_writes_time_out(table):
    _, two, three = table.cluster.nodes
    table.cluster.take_down(two, noticed_after_ns=20 * NS_PER_SECOND)
    table.cluster.take_down(three, noticed_after_ns=20 * NS_PER_SECOND)
    table.session.cluster.default_retry_policy = FallthroughRetryPolicy()
    with pytest.raises(WriteTimeout) as caught:
        insert(table)
    assert caught.value.received_responses == 1
    assert read(table, consistency=CL.ONE) == [1]
    table.wait_s(20)
    with pytest.raises(Unavailable):
        insert(table)


def test_slow_replicas_make_writes_time_out_and_apply_later(table):
    for node in table.cluster.nodes[1:]:
        table.cluster.slow_down(node, 3 * NS_PER_SECOND)
    insert_at = table.session.prepare("INSERT INTO t (p, v) VALUES (1, 1)")
    with pytest.raises(WriteTimeout):
        table.session.execute(insert_at, host=table.cluster.nodes[0])
    assert holders(table) == ["cassandra-1"]
    table.wait_s(2)
    assert len(holders(table)) == 3


def test_lost_answer_ends_by_the_clients_time_out_although_written(table):
    table.cluster.faults.arm("lose_answer", times=1)
    begun = table.clock.now
    with pytest.raises(OperationTimedOut):
        insert(table)
    assert table.clock.now - begun == 10 * NS_PER_SECOND
    assert read(table) == [1]


def test_cut_link_between_coordinator_and_one_replica_leaves_a_hint(table):
    table.network.cut("cassandra-1", "cassandra-3")
    table.session.execute("INSERT INTO t (p, v) VALUES (1, 1)", host=table.cluster.nodes[0])
    assert holders(table) == ["cassandra-1", "cassandra-2"]
    table.network.heal_all()
    assert table.cluster.settle()
    assert len(holders(table)) == 3


def test_read_asks_another_replica_when_one_does_not_answer(table):
    insert(table)
    table.wait_s(1)
    table.network.cut("cassandra-1", "cassandra-2")
    for _ in range(4):
        rows = table.session.execute("SELECT v FROM t WHERE p = 1", host=table.cluster.nodes[0])
        assert list(rows) == [(1,)]


def test_read_time_out(table):
    table.cluster.faults.arm("read_timeout", times=1)
    with pytest.raises(ReadTimeout):
        read(table)


def test_overload_is_retried_on_the_next_host(table):
    table.cluster.faults.arm("overload", times=1)
    insert(table)
    assert table.cluster.struck == {"overload": 1}
    table.cluster.faults.arm("overload")
    with pytest.raises((OverloadedErrorMessage, NoHostAvailable)):
        insert(table, v=2)


def test_unavailable_fault_is_retried_once(table):
    table.cluster.faults.arm("unavailable", times=1)
    insert(table)
    table.cluster.faults.arm("unavailable", times=2)
    with pytest.raises(Unavailable):
        insert(table)


def test_coordinator_that_goes_down_loses_the_connection_and_the_next_one_is_tried(table):
    future = table.session.execute_async("INSERT INTO t (p, v) VALUES (1, 1)")
    first = future.coordinator_host
    table.clock.run_until(table.clock.now + NS_PER_MS // 5)
    table.cluster.take_down(first)
    future.result()
    assert future.coordinator_host is not first
    assert table.cluster.struck["connection_lost"] == 1


def test_level_beyond_the_replication_factor_is_unavailable(make_world):
    world = make_world(factor=1)
    world.run("CREATE TABLE t (p int PRIMARY KEY, v int)")
    with pytest.raises(Unavailable):
        insert(world, consistency=CL.TWO)
    with pytest.raises(Unavailable):
        read(world, consistency=CL.TWO)


def test_plain_write_at_a_serial_level_is_refused(table):
    insert_at = table.session.prepare("INSERT INTO t (p, v) VALUES (?, ?)")
    insert_at.consistency_level = CL.SERIAL
    with pytest.raises(InvalidRequest):
        table.session.execute(insert_at, (1, 1))


def test_any_is_satisfied_by_a_hint_and_refused_for_reads(table):
    for node in table.cluster.nodes[1:]:
        table.cluster.take_down(node)
    insert(table, consistency=CL.ANY)
    with pytest.raises(InvalidRequest):
        read(table, consistency=CL.ANY)


@pytest.mark.parametrize(
    ("consistency", "needed"),
    [
        (CL.ONE, 1),
        (CL.LOCAL_ONE, 1),
        (CL.TWO, 2),
        (CL.LOCAL_QUORUM, 2),
        (CL.EACH_QUORUM, 2),
        (CL.THREE, 3),
        (CL.ALL, 3),
    ],
)
def test_how_many_must_be_up(table, consistency, needed):
    for node in table.cluster.nodes[needed:]:
        table.cluster.take_down(node)
    insert(table, consistency=consistency)
    assert read(table, consistency=consistency) == [1]
    table.cluster.take_down(table.cluster.nodes[needed - 1])
    with pytest.raises((Unavailable, NoHostAvailable)):
        insert(table, consistency=consistency)


def test_clock_skew_of_the_coordinator_decides_who_wins(table):
    table.session.use_client_timestamp = False
    ahead, behind, _ = table.cluster.nodes
    ahead.wall.jump(10 * NS_PER_SECOND)
    table.session.execute("INSERT INTO t (p, v) VALUES (1, 1)", host=ahead)
    table.wait_s(1)
    table.session.execute("INSERT INTO t (p, v) VALUES (1, 2)", host=behind)
    table.wait_s(1)
    assert read(table) == [1]


def test_settle_heals_everything_and_makes_replicas_equal(table):
    table.cluster.faults.arm("write_timeout_some", ppm=300_000)
    table.cluster.take_down(table.cluster.nodes[1])
    for p in range(20):
        with suppress(WriteTimeout, Unavailable):
            insert(table, p=p)
    assert table.cluster.settle()
    assert table.cluster.is_quiet()
    for p in range(20):
        assert read(table, p, CL.ALL) in ([], [1])


STEPS = hs.lists(
    hs.one_of(
        hs.tuples(hs.just("write"), hs.integers(0, 2)),
        hs.tuples(hs.just("down"), hs.integers(0, 2), hs.booleans(), hs.booleans()),
        hs.tuples(hs.just("up"), hs.integers(0, 2)),
        hs.tuples(hs.just("slow"), hs.integers(0, 2), hs.sampled_from([0, 5, 3000])),
        hs.tuples(hs.just("cut"), hs.integers(0, 2), hs.integers(0, 2)),
        hs.tuples(hs.just("heal")),
        hs.tuples(
            hs.just("arm"),
            hs.sampled_from(["write_timeout_none", "write_timeout_some", "write_timeout_all", "lose_answer"]),
        ),
        hs.tuples(hs.just("wait"), hs.integers(1, 20_000)),
        hs.tuples(hs.just("read"), hs.integers(0, 2)),
    ),
    min_size=3,
    max_size=25,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS, seed=hs.integers(0, 1000))
def test_quorum_read_sees_every_write_acknowledged_at_quorum(make_world, steps, seed):
    """The highest version seen by a quorum read is at least the highest one acknowledged before the read began."""
    world = make_world(seed)
    world.run("CREATE TABLE t (p int PRIMARY KEY, v int)")
    world.session.default_timeout = 4.0
    cluster = world.cluster
    version = 0
    acknowledged = {0: 0, 1: 0, 2: 0}
    seen = {0: 0, 1: 0, 2: 0}

    def check(p):
        rows = read(world, p)
        value = rows[0] if rows else 0
        assert value >= acknowledged[p]
        assert value >= seen[p], "blocking read repair keeps what was read once"
        seen[p] = value

    refusals = (WriteTimeout, ReadTimeout, Unavailable, NoHostAvailable, OperationTimedOut)
    for step in [*steps, ("heal",), ("wait", 5), ("read", 0), ("read", 1), ("read", 2)]:
        try:
            if step[0] == "write":
                version += 1
                insert(world, v=version, p=step[1], timestamp=version)
                acknowledged[step[1]] = version
            elif step[0] == "read":
                check(step[1])
            elif step[0] == "down":
                noticed = 0 if step[3] else 3 * NS_PER_SECOND
                cluster.take_down(cluster.nodes[step[1]], hints=step[2], noticed_after_ns=noticed)
            elif step[0] == "up":
                cluster.bring_up(cluster.nodes[step[1]])
            elif step[0] == "slow":
                cluster.slow_down(cluster.nodes[step[1]], step[2] * NS_PER_MS)
            elif step[0] == "cut":
                world.network.cut(cluster.nodes[step[1]].name, cluster.nodes[step[2]].name)
            elif step[0] == "arm":
                cluster.faults.arm(step[1], times=1)
            elif step[0] == "wait":
                world.clock.run_until(world.clock.now + step[1] * NS_PER_MS)
            else:
                world.network.heal_all()
                cluster.heal()
        except refusals:
            pass
