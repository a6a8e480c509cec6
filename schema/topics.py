"""Topics, and which partition a record belongs to (design section 3).

Partitions are chosen explicitly, from the symbol table and from a fixed function of the user id, never by a client's
own hash. Topics keyed by user all have the same number of partitions, so that one instance of the balance core can own
both of its inputs of a number.
"""

from dataclasses import dataclass
from typing import Final

from schema.identifiers import SymbolId, UserId
from schema.symbols import SymbolTable

ORDER_REQUESTS: Final = "order.requests"
"""By user: what clients ask for. Written by gateways, read by the balance core."""
FUND_UPDATES: Final = "fund.updates"
"""By user: what an engine output does to one user's funds. Written by the engine, read by the balance core."""
ORDER_RESPONSES: Final = "order.responses"
"""By user: answers and verdicts. Written by the balance core, read by every gateway."""
BALANCE_EVENTS: Final = "balance.events"
"""By user, chained: the balance core's decisions; its whole state is a fold over it."""
VALIDATED_ORDERS: Final = "validated.orders"
"""By symbol: requests whose funds are locked. Written by the balance core, read by the engine."""
ENGINE_OUTPUTS: Final = "engine.outputs"
"""By symbol, chained: one output for each input of the engine."""
DEAD_LETTERS: Final = "dead.letters"
"""Client requests that could not be decoded, with the reason. One partition."""
GATEWAY_SESSIONS: Final = "gateway.sessions"
"""One record for each start of a gateway; its offset makes that gateway's order ids unique. One partition."""

TOPICS_BY_USER: Final = (ORDER_REQUESTS, FUND_UPDATES, ORDER_RESPONSES, BALANCE_EVENTS)
TOPICS_BY_SYMBOL: Final = (VALIDATED_ORDERS, ENGINE_OUTPUTS)
CHAINED_TOPICS: Final = (BALANCE_EVENTS, ENGINE_OUTPUTS)

MAX_RECORD_BYTES: Final = 8 * 1024 * 1024
"""Record and fetch limit of every topic and client: an output too large to send would stop its partition for ever."""


@dataclass(frozen=True)
class Topology:
    """How the work is divided: the symbols, and the number of partitions of the topics keyed by user."""

    symbols: SymbolTable
    user_partitions: int

    def __post_init__(self) -> None:
        if not 1 <= self.user_partitions <= 10_000:
            raise ValueError(f"user_partitions must be 1 to 10000, not {self.user_partitions}")

    @property
    def symbol_partitions(self) -> int:
        """Partitions of the topics keyed by symbol."""
        return self.symbols.partitions

    def user_partition(self, user_id: UserId) -> int:
        """The partition of a user in every topic keyed by user. Never changes for a given number of partitions."""
        # Fibonacci hashing: neighbouring ids spread out, and the formula can be repeated by hand in any language.
        return ((user_id * 0x9E3779B97F4A7C15 & 0xFFFF_FFFF_FFFF_FFFF) >> 32) % self.user_partitions

    def symbol_partition(self, symbol_id: SymbolId) -> int:
        """The partition of a symbol in every topic keyed by symbol. Raises KeyError for an unknown symbol."""
        return self.symbols.symbols[symbol_id].partition

    def partitions(self) -> dict[str, int]:
        """How many partitions each topic has."""
        counts = dict.fromkeys(TOPICS_BY_USER, self.user_partitions)
        counts.update(dict.fromkeys(TOPICS_BY_SYMBOL, self.symbol_partitions))
        counts[DEAD_LETTERS] = 1
        counts[GATEWAY_SESSIONS] = 1
        return counts
