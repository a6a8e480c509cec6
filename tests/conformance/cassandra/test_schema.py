"""CREATE, ALTER, DROP, TRUNCATE and USE."""

from __future__ import annotations

import pytest
from cassandra import AlreadyExists


@pytest.fixture
def name(store):
    return f"s{store.key()}"


def test_create_if_not_exists(store, name):
    create = f"CREATE TABLE IF NOT EXISTS {name} (p int PRIMARY KEY)"
    store.run(create)
    store.run(create)
    with pytest.raises(AlreadyExists) as caught:
        store.run(f"CREATE TABLE {name} (p int PRIMARY KEY)")
    assert (caught.value.keyspace, caught.value.table) == (store.side.keyspace, name)


def test_keyspace_if_not_exists(store):
    options = "WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}"
    store.run(f"CREATE KEYSPACE IF NOT EXISTS {store.side.keyspace} {options}")
    with pytest.raises(AlreadyExists) as caught:
        store.run(f"CREATE KEYSPACE {store.side.keyspace} {options}")
    assert (caught.value.keyspace, caught.value.table) == (store.side.keyspace, "")


def test_a_table_may_be_named_with_its_keyspace(store, name):
    full = f"{store.side.keyspace}.{name}"
    store.run(f"CREATE TABLE {full} (p int PRIMARY KEY)")
    store.run(f"INSERT INTO {full} (p) VALUES (1)")
    assert store.run(f"SELECT p FROM {name}") == [(1,)]


def test_added_columns_are_null_in_old_rows(store, name):
    store.run(f"CREATE TABLE {name} (p int PRIMARY KEY, b int)")
    store.run(f"INSERT INTO {name} (p, b) VALUES (1, 1)")
    store.run(f"ALTER TABLE {name} ADD a int")
    store.run(f"ALTER TABLE {name} ADD (c int, d text)")
    assert store.run(f"SELECT * FROM {name}") == [(1, None, 1, None, None)]
    store.run(f"ALTER TABLE {name} ADD IF NOT EXISTS a int")


def test_truncate_empties(store, name):
    store.run(f"CREATE TABLE {name} (p int PRIMARY KEY)")
    store.run(f"INSERT INTO {name} (p) VALUES (1)")
    store.run(f"TRUNCATE {name}")
    assert store.run(f"SELECT * FROM {name}") == []
    store.run(f"INSERT INTO {name} (p) VALUES (2)")
    store.run(f"TRUNCATE TABLE {name}")
    assert store.run(f"SELECT * FROM {name}") == []


def test_drop(store, name):
    store.run(f"CREATE TABLE {name} (p int PRIMARY KEY)")
    insert = store.prepare(f"INSERT INTO {name} (p) VALUES (?)")
    store.run(f"DROP TABLE {name}")
    store.run(f"DROP TABLE IF EXISTS {name}")
    assert store.refuse(insert, (1,))[0] == "InvalidRequest"


def test_quoted_names_keep_their_case(store, name):
    store.run(f'CREATE TABLE "{name}X" ("P" int PRIMARY KEY, "a b" int, "select" int)')
    store.run(f'INSERT INTO "{name}X" ("P", "a b", "select") VALUES (1, 2, 3)')
    result = store.session.execute(f'SELECT "P", "a b", "select" FROM "{name}X"')
    assert result.column_names == ["P", "a b", "select"]
    assert list(result) == [(1, 2, 3)]
    assert store.refuse(f"SELECT * FROM {name}X")[0] == "InvalidRequest"


def test_comments_and_case_of_words(store, name):
    store.run(f"create table {name.upper()} (P INT primary key, -- a comment\n V Int)")
    store.run(f"insert /* here */ into {name} (p, v) values (1, 2); // done\n")
    assert store.run(f"SELECT V FROM {name.upper()} WHERE P = 1;") == [(2,)]
    assert store.refuse(f"SELECT V FROM {name} -- no end of line")[0] == "SyntaxException"
