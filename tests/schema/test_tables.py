"""The store's statements: all columns, never null, always with a write timestamp (design section 4.5)."""

import re

import pytest

from schema import tables
from schema.events import OrderState
from schema.tables import MIGRATIONS, SCHEMA_VERSION, TABLE_COLUMNS, create_keyspace, insert_all, migrations_after

STATEMENTS = [statement for step in MIGRATIONS for statement in step.statements]


def created_columns(table: str) -> list[str]:
    [statement] = [each for each in STATEMENTS if re.search(rf"EXISTS {table} \(", each)]
    inside = statement[statement.index("(") + 1 : statement.index("PRIMARY KEY")]
    return [column.split()[0] for column in inside.split(",") if column.strip()]


@pytest.mark.parametrize("table", TABLE_COLUMNS)
def test_columns_written_are_the_columns_created(table: str) -> None:
    assert sorted(created_columns(table)) == sorted(TABLE_COLUMNS[table])


@pytest.mark.parametrize("table", TABLE_COLUMNS)
@pytest.mark.parametrize("ttl", [False, True])
def test_insert_binds_every_column_then_the_timestamp_then_the_ttl(table: str, ttl: bool) -> None:
    statement = insert_all(table, ttl=ttl)
    columns = TABLE_COLUMNS[table]
    assert statement.startswith(f"INSERT INTO {table} ({', '.join(columns)}) VALUES (")
    assert statement.count("?") == len(columns) + 1 + ttl
    assert statement.endswith("USING TIMESTAMP ? AND TTL ?" if ttl else "USING TIMESTAMP ?")


@pytest.mark.parametrize("table", TABLE_COLUMNS)
def test_every_table_repairs_what_it_reads(table: str) -> None:
    [statement] = [each for each in STATEMENTS if re.search(rf"EXISTS {table} \(", each)]
    assert "read_repair = 'BLOCKING'" in statement


def test_row_of_an_order_is_its_whole_state() -> None:
    fields = [name.removesuffix("_ns") for name in OrderState.__struct_fields__]
    assert sorted(tables.ORDER_COLUMNS) == sorted(fields)


def test_trade_rows_tell_nothing_of_the_counterparty() -> None:
    assert not [column for column in tables.TRADE_COLUMNS if "maker_" in column or "taker_" in column]


def test_active_orders_are_found_by_user_and_symbol_newest_first() -> None:
    [statement] = [each for each in STATEMENTS if "EXISTS active_orders (" in each]
    assert "PRIMARY KEY ((user_id, symbol_id), created_at, order_id)" in statement
    assert "CLUSTERING ORDER BY (created_at DESC, order_id DESC)" in statement


def test_migrations_count_up_and_bring_any_older_store_to_this_version() -> None:
    assert [step.version for step in MIGRATIONS] == list(range(1, SCHEMA_VERSION + 1))
    assert migrations_after(0) == MIGRATIONS
    assert migrations_after(SCHEMA_VERSION) == ()


def test_store_newer_than_the_code_is_refused() -> None:
    with pytest.raises(ValueError, match="this code knows versions up to"):
        migrations_after(SCHEMA_VERSION + 1)


def test_keyspace_replicates_as_often_as_asked() -> None:
    assert "'class': 'NetworkTopologyStrategy', 'replication_factor': 3" in create_keyspace(3)
    with pytest.raises(ValueError, match="at least 1"):
        create_keyspace(0)
