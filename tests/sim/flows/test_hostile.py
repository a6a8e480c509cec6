import pytest

from gateway.requests import RequestError, parse, to_event
from schema.identifiers import OrderId
from sim.flows.hostile import HOSTILITIES, hostile_request
from sim.flows.market import make_topology
from sim.randomness import Stream

SYMBOLS = make_topology(8, 3, 2).symbols


@pytest.mark.parametrize("way", range(len(HOSTILITIES)), ids=lambda way: HOSTILITIES[way].__name__)
def test_no_gateway_takes_a_hostile_request(way: int) -> None:
    class OneWay(Stream):
        def choice(self, items):  # type: ignore[no-untyped-def]
            return items[way] if items is HOSTILITIES else super().choice(items)

    for symbol in SYMBOLS:
        stream = OneWay(way, symbol.name)
        for number in range(60):
            text = hostile_request(stream, symbol, 7, f"h{number}")
            with pytest.raises(RequestError) as caught:
                to_event(parse(text), SYMBOLS, OrderId(1), 1)
            assert "\n" not in str(caught.value)


def test_the_same_draws_give_the_same_text() -> None:
    texts = [
        [hostile_request(stream, symbol, 7, "h") for symbol in SYMBOLS] for stream in (Stream(1, "a"), Stream(1, "a"))
    ]
    assert texts[0] == texts[1]
