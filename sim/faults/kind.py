"""A kind of fault: what its faults are called, how each is drawn, and what each does to the world.

A fault begins and ends; what it does in between, it does to the simulated network, brokers, replicas, clocks, disks,
hosts and clients, never to the services. A fault that names no production statement that it could hit does not belong
into a catalogue.
"""

from collections.abc import Callable

from sim.deployment import Deployment
from sim.faults.options import FaultOptions
from sim.script import Strike

Undo = Callable[[], None]
"""Ends a strike; called once, after its duration or when everything is healed."""
Begin = Callable[[Deployment, Strike], Undo | None]


class Kind:
    """The faults of one kind, in the order in which its module states them."""

    def __init__(self, name: str, about: str = "") -> None:
        self.name = name
        self.about = about
        """What a reader of the catalogue should know of all of them."""
        self.options: dict[str, FaultOptions] = {}
        self.begin: dict[str, Begin] = {}

    def fault(self, options: FaultOptions) -> Callable[[Begin], Begin]:
        """Add a fault; the function below begins a strike of it and gives back what ends it, if it goes on."""

        def register(begin: Begin) -> Begin:
            assert options.name not in self.options, options.name
            self.options[options.name] = options
            self.begin[options.name] = begin
            return begin

        return register
