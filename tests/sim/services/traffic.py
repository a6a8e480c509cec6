"""Requests in which much happens: deposits, crossing orders, cancels, of users of every partition."""

from schema.codes import Side
from schema.events import AnyRequest
from schema.topics import Topology
from tests.engine.exchange_for_tests import BTC, BTC_USD, ETH, ETH_USD, USD, cancel, deposit, place, users_of


def deposits(top: Topology, users_per_partition: int = 2) -> list[AnyRequest]:
    """Plenty for everybody."""
    return [
        deposit(10**12, asset, user=user, request_id=f"deposit-{asset.name}")
        for partition in range(top.user_partitions)
        for user in users_of(top, partition, users_per_partition)
        for asset in (BTC, USD, ETH)
    ]


def orders(top: Topology, count: int, first_id: int = 1) -> list[AnyRequest]:
    """Orders of all users in both symbols that rest, trade, and are cancelled."""
    users = [user for partition in range(top.user_partitions) for user in users_of(top, partition, 2)]
    requests: list[AnyRequest] = []
    for number in range(count):
        order_id = first_id + number
        user = users[number % len(users)]
        symbol = (BTC_USD, ETH_USD)[number // len(users) % 2]
        side = Side.BUY if number % 3 else Side.SELL
        requests.append(place(order_id, side, 100 + number % 5, 1 + number % 4, user=user, symbol=symbol))
        if number % 7 == 6:
            requests.append(cancel(order_id, user=user, symbol=symbol))
    return requests
