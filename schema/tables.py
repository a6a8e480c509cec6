"""The tables of the store, as CQL, and how they are created and migrated (design section 4.5).

Times are bigint nanoseconds, hashes signed bigints, and no column is ever null. Every write names all columns with
`USING TIMESTAMP` (an order's revision, a ledger sequence, an output sequence), so writes commute and a replay changes
nothing. A live row never expires; the completing write carries a time to live of 24 hours after completion.

A migration is a version number and its statements. `migrations` is append-only: what stands in it has run somewhere.
"""

from dataclasses import dataclass
from typing import Final

KEYSPACE: Final = "exchange"

FINISHED_ROW_TTL_S: Final = 24 * 3600
"""How long a finished order stays in active_orders and order_lookup after its completion."""

ACTIVE_ORDERS: Final = "active_orders"
ORDER_LOOKUP: Final = "order_lookup"
ORDER_HISTORY: Final = "order_history"
USER_TRADES: Final = "user_trades"
BALANCE_LEDGER: Final = "balance_ledger"
USER_BALANCES: Final = "user_balances"
SETTLEMENT_PROGRESS: Final = "settlement_progress"
SCHEMA_VERSION_TABLE: Final = "schema_version"

ORDER_COLUMNS: Final = (
    "user_id",
    "symbol_id",
    "created_at",
    "order_id",
    "updated_at",
    "revision",
    "status",
    "reason",
    "side",
    "order_type",
    "time_in_force",
    "price",
    "quantity",
    "filled_quantity",
    "filled_quote",
    "max_spend",
    "client_order_id",
)
"""Columns of active_orders and order_history: an OrderState."""
LOOKUP_COLUMNS: Final = ("order_id", "user_id", "symbol_id", "created_at", "revision")
TRADE_COLUMNS: Final = (
    "user_id",
    "symbol_id",
    "traded_at",
    "trade_id",
    "order_id",
    "side",
    "is_maker",
    "price",
    "quantity",
    "quote_amount",
    "symbol_partition",
    "output_seq",
)
"""One row for each side. Nothing of the counterparty is in it: rows are shown to the user."""
LEDGER_COLUMNS: Final = (
    "user_id",
    "asset_id",
    "ledger_seq",
    "kind",
    "order_id",
    "available_delta",
    "locked_delta",
    "available_after",
    "locked_after",
    "recorded_at",
    "user_partition",
    "event_seq",
)
BALANCE_COLUMNS: Final = ("user_id", "asset_id", "available", "locked", "ledger_seq", "updated_at")
PROGRESS_COLUMNS: Final = ("topic", "partition_id", "sequence", "hash", "next_offset")
"""The last record of a chained partition whose rows are all acknowledged; `next_offset` is one past its offset."""

TABLE_COLUMNS: Final[dict[str, tuple[str, ...]]] = {
    ACTIVE_ORDERS: ORDER_COLUMNS,
    ORDER_LOOKUP: LOOKUP_COLUMNS,
    ORDER_HISTORY: ORDER_COLUMNS,
    USER_TRADES: TRADE_COLUMNS,
    BALANCE_LEDGER: LEDGER_COLUMNS,
    USER_BALANCES: BALANCE_COLUMNS,
    SETTLEMENT_PROGRESS: PROGRESS_COLUMNS,
}

_ORDER_COLUMN_TYPES: Final = """
    user_id bigint,
    symbol_id bigint,
    created_at bigint,
    order_id bigint,
    updated_at bigint,
    revision bigint,
    status int,
    reason int,
    side int,
    order_type int,
    time_in_force int,
    price bigint,
    quantity bigint,
    filled_quantity bigint,
    filled_quote bigint,
    max_spend bigint,
    client_order_id text,
    PRIMARY KEY ((user_id, symbol_id), created_at, order_id)"""


@dataclass(frozen=True)
class Migration:
    """One step of the schema. Statements name tables without the keyspace; the session has it set."""

    version: int
    statements: tuple[str, ...]


def create_keyspace(replication_factor: int, keyspace: str = KEYSPACE) -> str:
    """The statement that creates the keyspace. Raises ValueError for a replication factor below 1."""
    if replication_factor < 1:
        raise ValueError(f"replication factor must be at least 1, not {replication_factor}")
    return (
        f"CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = "
        f"{{'class': 'NetworkTopologyStrategy', 'replication_factor': {replication_factor}}}"
    )


CREATE_VERSION_TABLE: Final = (
    f"CREATE TABLE IF NOT EXISTS {SCHEMA_VERSION_TABLE} (component text, version int, PRIMARY KEY (component, version))"
)

MIGRATIONS: Final[tuple[Migration, ...]] = (
    Migration(
        1,
        (
            f"CREATE TABLE IF NOT EXISTS {ACTIVE_ORDERS} ({_ORDER_COLUMN_TYPES}\n) "
            "WITH CLUSTERING ORDER BY (created_at DESC, order_id DESC) AND read_repair = 'BLOCKING'",
            f"CREATE TABLE IF NOT EXISTS {ORDER_HISTORY} ({_ORDER_COLUMN_TYPES}\n) "
            "WITH CLUSTERING ORDER BY (created_at DESC, order_id DESC) AND read_repair = 'BLOCKING'",
            f"CREATE TABLE IF NOT EXISTS {ORDER_LOOKUP} (order_id bigint, user_id bigint, symbol_id bigint, "
            "created_at bigint, revision bigint, PRIMARY KEY (order_id)) WITH read_repair = 'BLOCKING'",
            f"CREATE TABLE IF NOT EXISTS {USER_TRADES} (user_id bigint, symbol_id bigint, traded_at bigint, "
            "trade_id bigint, order_id bigint, side int, is_maker boolean, price bigint, quantity bigint, "
            "quote_amount bigint, symbol_partition int, output_seq bigint, "
            "PRIMARY KEY ((user_id, symbol_id), traded_at, trade_id)) "
            "WITH CLUSTERING ORDER BY (traded_at DESC, trade_id DESC) AND read_repair = 'BLOCKING'",
            f"CREATE TABLE IF NOT EXISTS {BALANCE_LEDGER} (user_id bigint, asset_id bigint, ledger_seq bigint, "
            "kind int, order_id bigint, available_delta bigint, locked_delta bigint, available_after bigint, "
            "locked_after bigint, recorded_at bigint, user_partition int, event_seq bigint, "
            "PRIMARY KEY ((user_id, asset_id), ledger_seq)) "
            "WITH CLUSTERING ORDER BY (ledger_seq DESC) AND read_repair = 'BLOCKING'",
            f"CREATE TABLE IF NOT EXISTS {USER_BALANCES} (user_id bigint, asset_id bigint, available bigint, "
            "locked bigint, ledger_seq bigint, updated_at bigint, PRIMARY KEY ((user_id), asset_id)) "
            "WITH read_repair = 'BLOCKING'",
            f"CREATE TABLE IF NOT EXISTS {SETTLEMENT_PROGRESS} (topic text, partition_id int, sequence bigint, "
            "hash bigint, next_offset bigint, PRIMARY KEY ((topic, partition_id))) WITH read_repair = 'BLOCKING'",
        ),
    ),
)

SCHEMA_VERSION: Final = MIGRATIONS[-1].version
"""The version that this code reads and writes."""


def migrations_after(version: int) -> tuple[Migration, ...]:
    """The steps that bring a store at `version` (0: empty) to SCHEMA_VERSION.

    Raises ValueError when the store is newer than this code.
    """
    if version > SCHEMA_VERSION:
        raise ValueError(f"the store has schema version {version}, this code knows versions up to {SCHEMA_VERSION}")
    return tuple(step for step in MIGRATIONS if step.version > version)


def insert_all(table: str, *, ttl: bool = False) -> str:
    """The one kind of write there is: an INSERT of all columns with a write timestamp, and with a TTL if asked.

    Bind values: the columns in the order of TABLE_COLUMNS, then the timestamp, then the TTL in seconds.
    """
    columns = TABLE_COLUMNS[table]
    markers = ", ".join("?" for _ in columns)
    using = "USING TIMESTAMP ? AND TTL ?" if ttl else "USING TIMESTAMP ?"
    return f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({markers}) {using}"
