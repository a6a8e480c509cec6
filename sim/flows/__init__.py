"""Sources of client operations: a synthetic market, and recorded flow from files (design 8, Clients, and 10).

A flow is a list or an iterator of `Operation`s, plain data in the order of time. `sim.clients` carries them out.
"""

from sim.flows.market import make_topology
from sim.flows.operations import Operation
from sim.flows.recorded import RecordedFlow, load_flow
from sim.flows.report import FlowError, FlowReport
from sim.flows.synthetic import synthetic_flow

__all__ = [
    "FlowError",
    "FlowReport",
    "Operation",
    "RecordedFlow",
    "load_flow",
    "make_topology",
    "synthetic_flow",
]
