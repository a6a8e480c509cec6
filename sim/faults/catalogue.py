"""Every fault, by name: the kinds in the order in which a seed draws their faults (design section 8).

The order is part of what a seed means: a fault put in front of others changes the swarms of every seed.
"""

from typing import Final

from sim.faults.assumptions import ASSUMPTIONS
from sim.faults.cassandra import CASSANDRA
from sim.faults.clients import CLIENTS
from sim.faults.combined import COMBINED
from sim.faults.hosts import HOSTS
from sim.faults.kafka import KAFKA
from sim.faults.kind import Begin, Kind
from sim.faults.network import NETWORK
from sim.faults.options import FaultOptions

KINDS: Final[tuple[Kind, ...]] = (NETWORK, KAFKA, CASSANDRA, HOSTS, CLIENTS, COMBINED, ASSUMPTIONS)

OPTIONS: Final[dict[str, FaultOptions]] = {name: options for kind in KINDS for name, options in kind.options.items()}
BEGIN: Final[dict[str, Begin]] = {name: begin for kind in KINDS for name, begin in kind.begin.items()}
assert len(OPTIONS) == sum(len(kind.options) for kind in KINDS), "a fault's name is taken by two kinds"
