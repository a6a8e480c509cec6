"""What the doubles offer has the names and signatures of aiokafka's own classes, so that an upgrade cannot drift.

Every public name of a class of the client is offered by its double, or refused by a method that says so.
"""

from __future__ import annotations

import asyncio
import inspect
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.partitioner import DefaultPartitioner
from aiokafka.producer.message_accumulator import BatchBuilder as RealBatchBuilder
from aiokafka.producer.producer import TransactionContext as RealTransactionContext

from sim.conform.kafka_sides import DoubleSide
from sim.kafka.admin import Admin
from sim.kafka.consumer import Consumer
from sim.kafka.pending import BatchBuilder
from sim.kafka.producer import Producer, TransactionContext
from sim.kafka.settings import FIXED, UnsupportedSetting

CLASSES = [
    (AIOKafkaProducer, Producer),
    (AIOKafkaConsumer, Consumer),
    (AIOKafkaAdminClient, Admin),
    (RealBatchBuilder, BatchBuilder),
    (RealTransactionContext, TransactionContext),
]
CLIENTS = CLASSES[:3]

OUR_OWN = {Producer: {"is_fenced"}, BatchBuilder: {"records", "size_bytes"}}
"""What doubles have beside: the transaction context asks its producer, the producer its batches."""

REFUSED: dict[type, dict[str, tuple[Any, ...]]] = {
    Admin: {
        "delete_topics": (["t"],),
        "create_partitions": ({},),
        "describe_configs": ([],),
        "alter_configs": ([],),
        "describe_consumer_groups": (["g"],),
        "list_consumer_groups": (),
    },
}
"""Methods that are there to say that they are not modelled, and arguments to call them with."""

FROM_OUTSIDE = {"self", "cluster", "incarnation", "unsupported"}
"""Parameters of the doubles' constructors that the real ones have not."""

HIDDEN = {Producer: {"acks": 1, "partitioner": DefaultPartitioner}}
"""Parameters whose real default is an object of no meaning; the double has None, and the tests of behaviour see what
it stands for."""


def public(owner: type) -> set[str]:
    return {name for name in dir(owner) if not name.startswith("_")}


@pytest.mark.parametrize(("real", "double"), CLASSES)
def test_every_public_name_is_offered_or_refused(real: type, double: type) -> None:
    assert public(real) - public(double) == set()
    assert public(double) - public(real) == OUR_OWN.get(double, set())


@pytest.mark.parametrize(
    ("real", "double", "name"),
    [(real, double, name) for real, double in CLASSES for name in sorted(public(real) & public(double))],
)
def test_methods_have_the_same_parameters(real: Any, double: Any, name: str) -> None:
    theirs, ours = getattr(real, name), getattr(double, name)
    assert inspect.iscoroutinefunction(ours) == inspect.iscoroutinefunction(theirs)
    assert described(ours) == described(theirs)


def described(method: Any) -> list[tuple[str, str, object]]:
    """Name, kind and default of each parameter; an empty list as a default is an empty tuple."""
    return [
        (each.name, each.kind.name, () if each.default == [] else each.default)
        for each in inspect.signature(method).parameters.values()
    ]


@pytest.mark.parametrize(("real", "double"), CLIENTS)
def test_constructors_have_the_same_parameters(real: Any, double: Any) -> None:
    theirs = inspect.signature(real).parameters
    ours = inspect.signature(double).parameters
    hidden = HIDDEN.get(double, {})
    assert set(ours) - FROM_OUTSIDE <= set(theirs)
    for name, parameter in theirs.items():
        if name in hidden:
            assert name in ours
        elif name in ours:
            assert (name, ours[name].kind, ours[name].default) == (name, parameter.kind, parameter.default)
        else:
            assert parameter.default in FIXED[name], f"{name} is neither offered nor refused"


@pytest.mark.parametrize("name", sorted(FIXED))
def test_settings_that_are_refused_exist(name: str) -> None:
    assert any(name in inspect.signature(real).parameters for real, _ in CLIENTS)


@pytest.mark.parametrize("make", ["producer", "consumer", "admin"])
def test_setting_that_does_not_exist_is_an_error_as_there(make: str) -> None:
    async def body() -> None:
        with pytest.raises(TypeError, match="unexpected keyword argument 'no_such_setting'"):
            getattr(side.clients, make)(no_such_setting=1)
        with pytest.raises(UnsupportedSetting, match="security_protocol"):
            getattr(side.clients, make)(security_protocol="SSL")

    side = DoubleSide()
    side.run(body)
    side.close()


@pytest.mark.parametrize(
    ("double", "name", "arguments"),
    [(double, name, arguments) for double, names in REFUSED.items() for name, arguments in names.items()],
)
def test_what_is_not_modelled_says_so(double: type, name: str, arguments: tuple[Any, ...]) -> None:
    async def body() -> None:
        client = {Admin: side.clients.admin}[double]()
        await client.start()
        with pytest.raises(UnsupportedSetting):
            await getattr(client, name)(*arguments)
        await client.close()

    side = DoubleSide()
    side.run(body)
    side.close()


@pytest.mark.parametrize(("real", "double"), CLIENTS)
def test_contexts_are_contexts(real: Any, double: Any) -> None:
    for name in ("__aenter__", "__aexit__", "__aiter__", "__anext__"):
        assert hasattr(real, name) == hasattr(double, name), name


def test_doubles_raise_and_return_the_clients_own_classes() -> None:
    async def body() -> None:
        kafka = side.clients
        producer = kafka.producer()
        async with producer:
            (name,) = [await side.topic(1, {})]
            stored = await producer.send_and_wait(name, b"v")
            assert type(stored).__module__ == "aiokafka.structs"
            delivery = await producer.send(name, b"v")
            assert isinstance(delivery, asyncio.Future)
            await delivery

    side = DoubleSide()
    side.run(body)
    side.close()
