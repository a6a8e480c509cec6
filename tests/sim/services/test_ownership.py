"""Whatever ends a transaction or an owner: each input is taken once, and the chain links (design 4.3)."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka.errors import KafkaTimeoutError
from aiokafka.structs import TopicPartition

from schema.topics import BALANCE_EVENTS, ENGINE_OUTPUTS, ORDER_REQUESTS, ORDER_RESPONSES, VALIDATED_ORDERS
from sim.hosts import Incarnation
from sim.kafka import KafkaCluster, SimKafkaClients
from tests.sim.services.service_world import ServiceWorld
from tests.sim.services.traffic import deposits, orders

MakeWorld = Callable[..., ServiceWorld]


def assert_all_is_well(world: ServiceWorld) -> None:
    world.settle()
    world.assert_chains_whole()
    world.assert_every_input_taken()


class MeddledProducer:
    """A producer of which a test overrides a method; everything else is the double's."""

    def __init__(self, producer: Any, incarnation: Incarnation, meddle: Callable[..., Any]) -> None:
        self._producer = producer
        self._incarnation = incarnation
        self._meddle = meddle

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._producer, name)
        if not asyncio.iscoroutinefunction(method):
            return method

        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self._meddle(self._incarnation, name, method, *args, **kwargs)

        return call


def meddle_with(world: ServiceWorld, meddle: Callable[..., Any]) -> None:
    """Let `meddle(incarnation, name, method, *args)` stand before each call of a service's producers."""

    class Clients(SimKafkaClients):
        def __init__(self, cluster: KafkaCluster, incarnation: Incarnation) -> None:
            super().__init__(cluster, incarnation)
            self._meddled_incarnation = incarnation

        def producer(self, **config: Any) -> Any:
            return MeddledProducer(super().producer(**config), self._meddled_incarnation, meddle)

    world.clients = Clients


# -- the plain way


def test_the_first_start_takes_input_from_the_beginning(world: ServiceWorld) -> None:
    world.ask(*deposits(world.topology), *orders(world.topology, 40))
    world.ubscore()
    world.matching()
    assert_all_is_well(world)
    assert len(world.outputs(0)) > 0
    assert len(world.outputs(1)) > 0


def test_lifecycle_lines_are_logged_once_with_the_order_id(world: ServiceWorld) -> None:
    world.ubscore()
    world.matching()
    world.ask(*deposits(world.topology), *orders(world.topology, 40))
    assert_all_is_well(world)
    outputs = world.outputs(0) + world.outputs(1)
    for words, events in (
        ("OrderPlacement emitted", [each for output in outputs for each in output.order_placements]),
        ("OrderUpdate emitted", [each for output in outputs for each in output.order_updates]),
        ("OrderCompletion emitted", [each for output in outputs for each in output.order_completions]),
    ):
        assert events
        assert sorted(str(line["order_id"]) for line in world.said(words)) == sorted(str(e.order_id) for e in events)
    assert sorted(int(str(line["order_id"])) for line in world.said("order accepted")) == list(range(1, 41))


def test_a_restarted_instance_goes_on_where_the_log_ends(world: ServiceWorld) -> None:
    hosts = [world.ubscore(), world.matching()]
    world.ask(*deposits(world.topology), *orders(world.topology, 20))
    world.settle()
    for host in hosts:
        host.crash()
    world.ask(*orders(world.topology, 20, first_id=21))
    for host in hosts:
        host.restart()
    assert_all_is_well(world)


def test_more_input_than_an_inbox_holds_pauses_the_partition_and_loses_nothing(make_world: MakeWorld) -> None:
    world = make_world(inbox_records_max=4, batch_records_max=2, poll_records_max=3)
    world.ask(*deposits(world.topology), *orders(world.topology, 60))
    world.ubscore()
    world.matching()
    assert_all_is_well(world)


def test_the_groups_committed_offset_is_not_where_input_is_resumed(world: ServiceWorld) -> None:
    world.ask(*deposits(world.topology), *orders(world.topology, 10))

    async def commit_far_ahead(clients: SimKafkaClients) -> None:
        places = [TopicPartition(ORDER_REQUESTS, number) for number in range(2)]
        consumer = clients.consumer(group_id="ubscore", enable_auto_commit=False)
        consumer.assign(places)
        await consumer.start()
        await consumer.commit(dict.fromkeys(places, 10))
        await consumer.stop()

    world.run_client(commit_far_ahead)
    world.ubscore()
    world.matching()
    assert_all_is_well(world)


# -- transactions


def test_a_crash_between_send_and_commit_leaves_nothing_and_loses_nothing(world: ServiceWorld) -> None:
    crashed: list[str] = []

    async def crash_before_third_commit(
        incarnation: Incarnation, name: str, method: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        if name == "commit_transaction" and incarnation.name == "ubscore-1" and len(crashed) < 3:
            crashed.append(incarnation.name)
            if len(crashed) == 3:
                incarnation.host.crash()
                await asyncio.sleep(3600)
        return await method(*args, **kwargs)

    meddle_with(world, crash_before_third_commit)
    host = world.ubscore()
    world.matching()
    world.start_load([*deposits(world.topology), *orders(world.topology, 30)])
    world.until(lambda: not host.is_up)
    host.restart()
    assert_all_is_well(world)


def test_a_failed_delivery_aborts_the_whole_transaction(world: ServiceWorld) -> None:
    failed: list[object] = []

    async def fail_a_response(
        incarnation: Incarnation, name: str, method: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        result = await method(*args, **kwargs)
        if name == "send_batch" and args[1] == ORDER_RESPONSES and not failed:
            # The client reports a failure of a batch; what was written with it must not become visible.
            failed.append(args)
            result = asyncio.get_running_loop().create_future()
            result.set_exception(KafkaTimeoutError())
        return result

    meddle_with(world, fail_a_response)
    world.ubscore()
    world.matching()
    world.ask(*deposits(world.topology), *orders(world.topology, 10))
    assert_all_is_well(world)
    assert failed
    assert len(world.said("taking the partition over anew")) == 1
    answered = [response.request_id for response in world.responses() if response.verdict == 0]
    assert len(answered) == len(deposits(world.topology)) + len(orders(world.topology, 10))


def test_a_commit_of_unknown_outcome_is_looked_up_in_the_log(make_world: MakeWorld) -> None:
    world = make_world(transaction_timeout_ms=2_000, revocation_timeout_ms=3_000)
    hung: list[str] = []

    async def hang_after_commit(
        incarnation: Incarnation, name: str, method: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        result = await method(*args, **kwargs)
        if name == "commit_transaction" and not hung:
            hung.append(incarnation.name)
            await asyncio.sleep(3600)
        return result

    meddle_with(world, hang_after_commit)
    world.ubscore()
    world.matching()
    world.ask(*deposits(world.topology), *orders(world.topology, 10))
    world.until(lambda: bool(hung))
    assert_all_is_well(world)
    assert len(world.said("taking the partition over anew")) == 1


def test_markers_that_are_late_are_waited_for_before_the_log_is_read(world: ServiceWorld) -> None:
    host = world.ubscore()
    world.matching()
    world.ask(*deposits(world.topology))
    world.settle()
    world.start_load(orders(world.topology, 200), every_ms=2)
    world.pass_s(0.1)
    world.cluster.faults.stall_markers(world.now + 5 * 10**9)
    world.pass_s(0.1)
    host.crash()
    host.restart()
    assert_all_is_well(world)


# -- fencing


async def take_the_transactional_id(clients: SimKafkaClients) -> None:
    producer = clients.producer(transactional_id="ubscore-0")
    await producer.start()
    await producer.stop()


def test_a_fenced_instance_leaves_and_joins_again(world: ServiceWorld) -> None:
    world.ubscore()
    world.matching()
    world.ask(*deposits(world.topology))
    world.settle()
    world.run_client(take_the_transactional_id)
    world.ask(*orders(world.topology, 20))
    assert_all_is_well(world)
    assert len(world.said("leaving the group to join again")) == 1


def test_a_consumer_that_is_slow_to_close_goes_on_closing_and_leaves_its_partitions_to_the_next(
    world: ServiceWorld,
) -> None:
    slow_s = 2 * world.settings.stop_timeout_ms / 1000

    class Clients(SimKafkaClients):
        def consumer(self, *topics: str, **config: Any) -> Any:
            consumer = super().consumer(*topics, **config)
            stop = consumer.stop

            async def slow_stop() -> None:
                await asyncio.sleep(slow_s)
                await stop()

            consumer.stop = slow_stop  # type: ignore[method-assign]
            return consumer

    world.clients = Clients
    world.ubscore()
    world.matching()
    world.ask(*deposits(world.topology))
    world.settle()
    world.run_client(take_the_transactional_id)
    world.ask(*orders(world.topology, 20))
    assert_all_is_well(world)
    assert len(world.said("consumer not closed yet")) == 1
    assert len(world.cluster.groups.members("ubscore")) == 1


def test_a_paused_instance_that_wakes_up_is_fenced_by_the_one_that_took_over(world: ServiceWorld) -> None:
    zombie = world.ubscore("ubscore-1")
    world.matching()
    world.ask(*deposits(world.topology))
    world.settle()
    world.start_load(orders(world.topology, 1_000), every_ms=20)
    world.pass_s(2)
    zombie.pause()
    world.ubscore("ubscore-2")
    world.pass_s(15)
    assert len(world.said("partition taken over")) >= 6
    zombie.resume()
    world.pass_s(10)
    assert_all_is_well(world)


def test_a_transaction_that_the_coordinator_timed_out_is_taken_again(world: ServiceWorld) -> None:
    world.ubscore()
    world.matching()
    world.ask(*deposits(world.topology))
    world.settle()
    load = world.start_load(orders(world.topology, 900), every_ms=2)
    timed_out = 0
    while load.is_up:
        world.pass_s(0.003)
        timed_out += world.cluster.faults.time_out_transaction("matching-0") if timed_out < 2 else 0
    assert timed_out == 2
    assert_all_is_well(world)


# -- rebalances


def test_instances_that_come_and_go_under_load_lose_and_double_nothing(world: ServiceWorld) -> None:
    first = [world.ubscore("ubscore-1"), world.matching("matching-1")]
    world.ask(*deposits(world.topology))
    world.start_load(orders(world.topology, 1_000), every_ms=10)
    world.pass_s(2)
    world.ubscore("ubscore-2")
    world.matching("matching-2")
    world.pass_s(3)
    for host in first:
        host.stop()
    world.pass_s(3)
    assert world.ended["ubscore-1"] is None
    for host in first:
        host.restart()
    assert_all_is_well(world)
    owners = {
        (host, fields["partition"]) for _, host, _, event, fields in world.lines if event == "partition taken over"
    }
    assert len(owners) >= 6


def test_a_rebalance_in_the_middle_of_a_transaction_waits_for_its_end(world: ServiceWorld) -> None:
    world.ubscore()
    world.matching()
    world.ask(*deposits(world.topology))
    load = world.start_load(orders(world.topology, 300), every_ms=5)
    while load.is_up:
        world.pass_s(0.3)
        world.cluster.faults.rebalance("ubscore")
        world.cluster.faults.rebalance("matching")
    assert_all_is_well(world)
    assert world.said("transactions given up") == []
    assert world.said("taking the partition over anew") == []


def test_sigterm_lets_the_running_transaction_end(world: ServiceWorld) -> None:
    stopped: list[str] = []
    committed: list[str] = []

    async def stop_before_commit(
        incarnation: Incarnation, name: str, method: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        if name == "commit_transaction":
            if not stopped:
                stopped.append(incarnation.name)
                incarnation.host.clock.after(1, incarnation.host.stop)
                await asyncio.sleep(0.001)
            result = await method(*args, **kwargs)
            committed.append(incarnation.name)
            return result
        return await method(*args, **kwargs)

    meddle_with(world, stop_before_commit)
    host = world.ubscore()
    world.ask(*deposits(world.topology))
    world.until(lambda: not host.is_up)
    assert world.ended["ubscore-1"] is None
    assert committed
    assert len(world.balance_events(0)) + len(world.balance_events(1)) > 0
    assert world.said("transaction not aborted") == []
    host.restart()
    world.matching()
    assert_all_is_well(world)


def test_sigterm_ends_an_instance_that_reaches_no_broker(world: ServiceWorld) -> None:
    host = world.ubscore()
    world.ask(*deposits(world.topology))
    world.settle()
    world.start_load(orders(world.topology, 50), every_ms=1)
    world.pass_s(0.02)
    world.world.network.cut("ubscore-1", "*")
    world.pass_s(1)
    host.stop()
    world.until(lambda: not host.is_up, limit_s=30)
    assert world.ended["ubscore-1"] is None
    world.world.network.heal_all()
    host.restart()
    world.matching()
    assert_all_is_well(world)


def test_the_same_seed_gives_the_same_trace(make_world: MakeWorld) -> None:
    def digest() -> str:
        world = make_world(seed=5)
        hosts = [world.ubscore("ubscore-1"), world.ubscore("ubscore-2"), world.matching()]
        world.ask(*deposits(world.topology))
        world.start_load(orders(world.topology, 100), every_ms=10)
        world.pass_s(0.5)
        hosts[0].crash()
        world.pass_s(3)
        hosts[0].restart()
        assert_all_is_well(world)
        return world.recorder.digest()

    assert digest() == digest()


@pytest.mark.parametrize("seed", range(3))
def test_under_faults_of_every_kind_each_input_is_taken_once(make_world: MakeWorld, seed: int) -> None:
    world = make_world(seed=seed, snapshot_interval_outputs=50)
    hosts = [world.ubscore("ubscore-1"), world.ubscore("ubscore-2"), world.matching("matching-1")]
    hosts.append(world.matching("matching-2"))
    world.ask(*deposits(world.topology))
    load = world.start_load(orders(world.topology, 800), every_ms=25)
    world.cluster.faults.lose_answers(20_000)
    stream = world.world.randomness.stream("test/faults")
    while load.is_up:
        world.pass_s(stream.between(300, 2_000) / 1000)
        host = stream.choice(hosts)
        what = stream.below(7)
        if not host.is_up:
            host.restart()
        elif what == 0:
            host.crash()
        elif what == 1:
            host.stop()
        elif what == 2:
            world.cluster.faults.evict("ubscore")
        elif what == 3:
            world.cluster.faults.rebalance("matching")
        elif what == 4:
            world.cluster.faults.move_leader(stream.choice([BALANCE_EVENTS, ENGINE_OUTPUTS, VALIDATED_ORDERS]), 0)
        elif what == 5:
            world.cluster.faults.move_transaction_coordinator("matching-0")
        else:
            world.cluster.faults.time_out_transaction("ubscore-0")
    world.cluster.faults.heal()
    world.pass_s(5)
    for host in hosts:
        if not host.is_up:
            host.restart()
    assert_all_is_well(world)
    assert world.said("", "critical") == []
