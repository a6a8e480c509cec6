"""What a service that owns partitions is handed from outside, in one record."""

import asyncio
from dataclasses import dataclass, field

from engine.ownership_settings import OwnershipSettings
from engine.partition_core import Duty
from schema.ports import Clock, Disk, KafkaClients, Log, Randomness


@dataclass(frozen=True)
class Surroundings:
    """The duty to do, the ports to do it through, and the settings."""

    duty: Duty
    kafka: KafkaClients
    disk: Disk
    clock: Clock
    randomness: Randomness
    log: Log
    settings: OwnershipSettings
    closing: "list[asyncio.Task[None]]" = field(default_factory=list)
    """Consumers of earlier memberships that take long to close: they go on, and are held here until they have."""

    async def back_off(self, failures: int, unless: asyncio.Event) -> None:
        """Pause before the next attempt, longer with each failure in a row; no longer than until `unless` is set."""
        settings = self.settings
        pause_ms = min(settings.backoff_max_ms, settings.backoff_initial_ms << min(failures - 1, 20))
        pause_ms -= self.randomness.below(pause_ms // 2 + 1)
        try:
            async with asyncio.timeout(pause_ms / 1000):
                await unless.wait()
        except TimeoutError:
            pass
