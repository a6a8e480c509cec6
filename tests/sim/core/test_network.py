"""Messages take time, keep their order, and suffer what the faults on their link say."""

from __future__ import annotations

import pytest

from sim.clock import NS_PER_MS, NS_PER_US, Clock
from sim.network import DATA_CENTRE, Latency, Network
from sim.randomness import Randomness


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def network(clock: Clock) -> Network:
    return Network(clock, Randomness(1))


def send_many(network: Network, source: str = "a", target: str = "b", n: int = 300) -> list[tuple[int, int]]:
    """(when, number) of each message that arrived."""
    arrived: list[tuple[int, int]] = []
    for number in range(n):
        network.send(source, target, lambda number=number: arrived.append((network.clock.now, number)))
    network.clock.run()
    return arrived


def test_messages_take_the_link_s_latency(network: Network) -> None:
    arrived = send_many(network)
    assert len(arrived) == 300
    assert arrived[0][0] >= DATA_CENTRE.table_ns[0]
    assert len({when for when, _ in arrived}) > 5


def test_messages_of_one_direction_keep_their_order(network: Network) -> None:
    arrived = send_many(network)
    assert [number for _, number in arrived] == list(range(300))


def test_latency_has_a_long_tail() -> None:
    table = DATA_CENTRE.table_ns
    assert table[512] < 2 * table[0]
    assert table[-1] > 100 * table[0]
    assert list(table) == sorted(table)


def test_links_draw_from_streams_of_their_own(clock: Clock) -> None:
    alone = Network(Clock(), Randomness(1))
    beside = Network(Clock(), Randomness(1))
    send_many(beside, "a", "c")
    assert [alone.delay_ns("a", "b") for _ in range(50)] == [beside.delay_ns("a", "b") for _ in range(50)]


def test_cut_loses_messages_in_one_direction_only(network: Network) -> None:
    fault = network.cut("a", "b")
    assert not network.send("a", "b", list)
    assert network.delay_ns("a", "b") is None
    assert network.send("b", "a", list)
    assert not network.is_clear("a", "b")
    assert network.is_clear("b", "a")
    assert (fault.struck, network.struck["cut"]) == (2, 2)


def test_link_cut_twice_is_whole_when_both_are_healed(network: Network) -> None:
    network.cut("a", "b")
    network.cut("a", "b")
    network.heal("a", "b")
    assert not network.send("a", "b", list)
    network.heal("a", "b")
    assert network.send("a", "b", list)
    network.heal("a", "b")
    assert network.is_clear("a", "b")


def test_wildcards_reach_links_known_and_unknown(network: Network) -> None:
    network.send("engine", "kafka-1", list)
    network.cut("engine", "kafka-*")
    assert not network.send("engine", "kafka-1", list)
    assert not network.send("engine", "kafka-2", list)
    assert network.send("engine", "cassandra-1", list)
    network.cut("*", "cassandra-1")
    assert not network.send("engine", "cassandra-1", list)
    network.heal_all()
    assert network.is_clear("engine", "kafka-1")


def test_slow_multiplies_and_adds(clock: Clock) -> None:
    network = Network(clock, Randomness(1), Latency.constant(100))
    network.slow("a", "b", extra_ns=7, factor_percent=300)
    assert network.delay_ns("a", "b") == 307
    network.unslow("a", "b")
    assert network.delay_ns("a", "b") == 100


def test_clog_holds_messages_back_and_ends_by_itself(clock: Clock) -> None:
    network = Network(clock, Randomness(1), Latency.constant(100))
    network.clog("a", "b", until_ns=NS_PER_MS)
    assert send_many(network, n=3) == [(NS_PER_MS + 100, number) for number in range(3)]
    assert network.is_clear("a", "b")
    assert network.struck["clog"] == 3


def test_what_is_under_way_arrives_although_the_link_is_cut(network: Network, clock: Clock) -> None:
    arrived: list[int] = []
    network.send("a", "b", arrived.append, 1)
    network.cut("a", "b")
    clock.run()
    assert arrived == [1]


def test_lossy_loses_its_share_and_counts_it(network: Network) -> None:
    network.lossy("a", "b", ppm=300_000)
    lost = 1000 - len(send_many(network, n=1000))
    assert 200 < lost < 400
    assert network.struck["lossy"] == lost
    network.lossy("a", "b", ppm=0)
    assert network.is_clear("a", "b")


def test_faults_of_a_link_leave_its_latencies_as_they_were(network: Network) -> None:
    other = Network(Clock(), Randomness(1))
    network.cut("x", "*")
    assert [network.delay_ns("a", "b") for _ in range(50)] == [other.delay_ns("a", "b") for _ in range(50)]


def test_last_latency_set_for_a_link_counts(network: Network) -> None:
    network.set_latency("a", "*", Latency.constant(5 * NS_PER_US))
    network.set_latency("a", "b", Latency.constant(9 * NS_PER_US))
    assert network.delay_ns("a", "c") == 5 * NS_PER_US
    assert network.delay_ns("a", "b") == 9 * NS_PER_US


def test_latency_table_must_be_complete() -> None:
    with pytest.raises(ValueError, match="1024 entries"):
        Latency((1, 2, 3))
