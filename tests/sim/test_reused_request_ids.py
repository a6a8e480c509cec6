"""Clients that use a request id for several bodies at once: each is told what became of its own (design 4.7)."""

import sys

from schema.codes import Reason
from sim.flows import make_topology
from sim.flows.operations import DEPOSIT, PLACE, Operation
from sim.progress import Progress
from sim.run import run_scenario
from sim.scenario import Scenario
from sim.script import Script
from traces.manifest import TopologyRecord

MS = 10**6


def test_each_of_two_bodies_under_one_id_is_told_its_own_answer_while_the_first_is_repeated() -> None:
    symbol = "BTC-USDT"
    operations = [Operation(0, 1, DEPOSIT, "money", asset="USDT", amount=10**12)]
    for number in range(20):
        at_ns, name = (1_000 + 100 * number) * MS, f"order-{number}"
        # The repeat and the other body reach their gateways together, the latter without waiting for any answer.
        operations += [
            Operation(
                at_ns, 1, PLACE, name, symbol=symbol, price=1_000, quantity=1, gateway=0, repeat_after_ns=50 * MS
            ),
            Operation(at_ns + 50 * MS, 1, PLACE, name, symbol=symbol, price=1_000, quantity=2, gateway=number),
        ]
    topology = TopologyRecord.of(make_topology(1, 1, 1))
    script = Script(topology=topology, operations=tuple(operations), strikes=())
    scenario = Scenario(
        seed=1, users=1, symbols=1, user_partitions=1, symbol_partitions=1, duration_ns=5_000 * MS, faults="none",
        script=script,
    )  # fmt: skip
    result = run_scenario(scenario, None, Progress(sys.stderr))
    assert [name for name, verdict in result.verdicts.items() if verdict.verdict == "violated"] == []
    answers = result.trace.events("client_answers", "request_id", "attempt", "outcome", "reason", "order_id")
    places = answers[answers["request_id"].str.startswith("order-")]
    assert len(places) == 3 * 20
    reused = places["reason"] == Reason.REQUEST_ID_REUSED
    assert (places[reused]["outcome"] == "rejected").all()
    assert reused.sum() == 20
    assert places[~reused]["order_id"].nunique() == 20
