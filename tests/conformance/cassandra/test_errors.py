"""What a server refuses, and what it says: the same statements, classes of error and messages on both sides.

The messages were taken from Cassandra 5.0. In them `$t` is the table and `$ks` the keyspace. Messages of syntax errors
come from the server's parser generator; of those only the class is compared.
"""

# ruff: noqa: E501 - the server's messages are as long as they are

from __future__ import annotations

import pytest
from cassandra import ConsistencyLevel, Unavailable
from cassandra.policies import FallthroughRetryPolicy
from cassandra.query import SimpleStatement

from tests.conformance.cassandra.conftest import error_of

WRONG_STATEMENTS = [
    ("SELECT nothing FROM $t", "Undefined column name nothing in table $ks.$t"),
    ("SELECT a FROM nowhere", "table nowhere does not exist"),
    ("SELECT a FROM nospace.nowhere", "keyspace nospace does not exist"),
    (
        "SELECT a FROM $t WHERE c = 1",
        "Cannot execute this query as it might involve data filtering and thus may have unpredictable performance. If you want to execute this query despite the performance unpredictability, use ALLOW FILTERING",
    ),
    (
        "SELECT a FROM $t WHERE p = 1 AND a = 1",
        "Cannot execute this query as it might involve data filtering and thus may have unpredictable performance. If you want to execute this query despite the performance unpredictability, use ALLOW FILTERING",
    ),
    (
        "SELECT a FROM $t WHERE a = 1",
        "Cannot execute this query as it might involve data filtering and thus may have unpredictable performance. If you want to execute this query despite the performance unpredictability, use ALLOW FILTERING",
    ),
    (
        "SELECT a FROM $t WHERE p > 1",
        "Cannot execute this query as it might involve data filtering and thus may have unpredictable performance. If you want to execute this query despite the performance unpredictability, use ALLOW FILTERING",
    ),
    ("SELECT a FROM $t WHERE p = 'x'", 'Invalid STRING constant (x) for "p" of type int'),
    ("SELECT a FROM $t WHERE b = 5 ALLOW FILTERING", 'Invalid INTEGER constant (5) for "b" of type text'),
    ("SELECT a FROM $t WHERE p = 1 LIMIT 0", "LIMIT must be strictly positive"),
    ("SELECT a FROM $t WHERE p = 1 LIMIT -1", "LIMIT must be strictly positive"),
    ("SELECT a FROM $t WHERE p = 1 PER PARTITION LIMIT 0", "LIMIT must be strictly positive"),
    (
        "SELECT a FROM $t WHERE p = 1 AND p = 2",
        "p cannot be restricted by more than one relation if it includes an Equal",
    ),
    (
        "SELECT a FROM $t WHERE p = 1 AND c = 1 AND c = 2",
        "c cannot be restricted by more than one relation if it includes an Equal",
    ),
    (
        "SELECT a FROM $t WHERE p = 1 AND c > 1 AND c > 2",
        "More than one restriction was found for the start bound on c",
    ),
    (
        "SELECT a FROM $t WHERE p = 1 AND c > 1 AND c = 2",
        'Column "c" cannot be restricted by both an equality and an inequality relation',
    ),
    ("SELECT a FROM $t WHERE p = 1 AND c < 1 AND c <= 2", "More than one restriction was found for the end bound on c"),
    (
        "SELECT a FROM $t WHERE p = 1 AND c = 1 AND c > 2",
        "c cannot be restricted by more than one relation if it includes an Equal",
    ),
    (
        "SELECT a FROM $t ORDER BY c",
        "ORDER BY is only supported when the partition key is restricted by an EQ or an IN.",
    ),
    (
        "SELECT a FROM $t WHERE p=1 ORDER BY a",
        "Order by is currently only supported on the clustered columns of the PRIMARY KEY, got a",
    ),
    (
        "SELECT a FROM $t WHERE p=1 ORDER BY p",
        "Order by is currently only supported on the clustered columns of the PRIMARY KEY, got p",
    ),
    ("SELECT a FROM $t WHERE p=1 ORDER BY zz", "Undefined column name zz in table $ks.$t"),
    (
        "SELECT a FROM $t WHERE p IN (1,2) ORDER BY c",
        "Cannot page queries with both ORDER BY and a IN restriction on the partition key; you must either remove the ORDER BY or the IN and sort client side, or disable paging for this query",
    ),
    (
        "SELECT DISTINCT a FROM $t",
        "SELECT DISTINCT queries must only request partition key columns and/or static columns (not a)",
    ),
    (
        "SELECT DISTINCT p, a FROM $t",
        "SELECT DISTINCT queries must only request partition key columns and/or static columns (not a)",
    ),
    (
        "SELECT DISTINCT p, c FROM $t",
        "SELECT DISTINCT queries must only request partition key columns and/or static columns (not c)",
    ),
    ("SELECT DISTINCT s FROM $t", "SELECT DISTINCT queries must request all the partition key columns (missing p)"),
    (
        "SELECT DISTINCT p FROM $t WHERE c = 1",
        "SELECT DISTINCT with WHERE clause only supports restriction by partition key and/or static columns.",
    ),
    (
        "SELECT DISTINCT p FROM $t WHERE p=1 AND c = 1",
        "SELECT DISTINCT with WHERE clause only supports restriction by partition key and/or static columns.",
    ),
    ("SELECT writetime(p) FROM $t", "Cannot use selection function writetime on PRIMARY KEY part p"),
    ("SELECT ttl(c) FROM $t", "Cannot use selection function ttl on PRIMARY KEY part c"),
    ("SELECT writetime(zz) FROM $t", "Undefined column name zz in table $ks.$t"),
    (
        "SELECT a FROM $t WHERE token(c) > 1",
        "The token() function must be applied to all partition key components or none of them",
    ),
    ("SELECT a FROM $t WHERE p != 1", 'Unsupported "!=" relation: p != 1'),
    ("SELECT a FROM $t WHERE p = 1 AND c != 1", 'Unsupported "!=" relation: c != 1'),
    ("SELECT a FROM $t WHERE p = 1 AND a != 1 ALLOW FILTERING", 'Unsupported "!=" relation: a != 1'),
    ("SELECT a FROM $t WHERE p = 1 AND c != 1 ALLOW FILTERING", 'Unsupported "!=" relation: c != 1'),
    ("SELECT a FROM $t WHERE zz = 1", "Undefined column name zz in table $ks.$t"),
    ("SELECT a FROM $t WHERE p = null", "Invalid null value in condition for column p"),
    ("SELECT a FROM $t WHERE p = 1 AND c = null", "Invalid null value in condition for column c"),
    ("SELECT a FROM $t WHERE p=1 AND c IN (1,null)", "Invalid null value in condition for column c"),
    ("SELECT a FROM $t WHERE p=1 AND a = null ALLOW FILTERING", "Unsupported null value for column a"),
    ("SELECT a FROM $t WHERE p = 99999999999", "Unable to make int from '99999999999'"),
    ("SELECT a FROM $t WHERE p = 1.5", 'Invalid FLOAT constant (1.5) for "p" of type int'),
    ("SELECT a FROM $t WHERE p = true", 'Invalid BOOLEAN constant (true) for "p" of type int'),
    ("INSERT INTO $t (p, a) VALUES (1, 1)", "Some clustering keys are missing: c"),
    ("INSERT INTO $t (c, a) VALUES (1, 1)", "Some partition key parts are missing: p"),
    ("INSERT INTO $t (p, c, zz) VALUES (1, 1, 1)", "Undefined column name zz in table $ks.$t"),
    ("INSERT INTO $t (p, c, a, a) VALUES (1, 1, 1, 1)", "The column names contains duplicates"),
    ("INSERT INTO $t (p, c, a) VALUES (1, 1)", "Unmatched column names/values"),
    ("INSERT INTO $t (p, c, a) VALUES (1, 1, 1, 1)", "Unmatched column names/values"),
    ("INSERT INTO $t (p, c) VALUES (1, null)", "Invalid null value in condition for column c"),
    ("INSERT INTO $t (p, c) VALUES (null, 1)", "Invalid null value in condition for column p"),
    ("INSERT INTO $t (p, c, a) VALUES (1, 1, 'x')", 'Invalid STRING constant (x) for "a" of type int'),
    ("INSERT INTO $t (p, c, a) VALUES (1, 1, 99999999999)", "Unable to make int from '99999999999'"),
    ("INSERT INTO $t (p, c, b) VALUES (1, 1, 5)", 'Invalid INTEGER constant (5) for "b" of type text'),
    ("INSERT INTO $t (p, c, d) VALUES (1, 1, 5)", 'Invalid INTEGER constant (5) for "d" of type boolean'),
    ("INSERT INTO $t (p, c, e) VALUES (1, 1, 'x')", 'Invalid STRING constant (x) for "e" of type blob'),
    ("INSERT INTO $t (p, c, e) VALUES (1, 1, 0xabc)", "cannot parse 'abc' as hex bytes"),
    (
        "INSERT INTO $t (p, c, a) VALUES (1, 1, [1])",
        "Unexpected receiver type 'int'; only list and vector are expected",
    ),
    (
        "INSERT INTO $t (p, c, a) VALUES (1, 1, 1) USING TIMESTAMP 99999999999999999999",
        "Unable to make long from '99999999999999999999'",
    ),
    ("INSERT INTO $t (p) VALUES (1)", "Some clustering keys are missing: c"),
    ("UPDATE $t SET c = 5 WHERE p = 1 AND c = 1", "PRIMARY KEY part c found in SET part"),
    ("UPDATE $t SET p = 5 WHERE p = 1 AND c = 1", "PRIMARY KEY part p found in SET part"),
    ("UPDATE $t SET a = 5 WHERE p = 1", "Some clustering keys are missing: c"),
    ("UPDATE $t SET a = 5 WHERE c = 1", "Some partition key parts are missing: p"),
    (
        "UPDATE $t SET a = 5 WHERE p = 1 AND c > 1",
        "Slice restrictions are not supported on the clustering columns in UPDATE statements",
    ),
    ("UPDATE $t SET a = 5 WHERE p = 1 AND c = 1 AND b = 'x'", "Non PRIMARY KEY columns found in where clause: b "),
    ("UPDATE $t SET zz = 5 WHERE p = 1 AND c = 1", "Undefined column name zz in table $ks.$t"),
    (
        "UPDATE $t SET s = 5 WHERE p = 77 AND c = 1",
        "Invalid restrictions on clustering columns since the UPDATE statement modifies only static columns",
    ),
    (
        "UPDATE $t SET a = 5 WHERE p > 1 AND c = 1",
        "Only EQ and IN relation are supported on the partition key (unless you use the token() function) for UPDATE statements",
    ),
    (
        "UPDATE $t SET a = 5 WHERE token(p) > 1",
        "The token function cannot be used in WHERE clauses for UPDATE statements",
    ),
    ("DELETE FROM $t WHERE b = 'x'", "Some partition key parts are missing: p"),
    ("DELETE FROM $t WHERE c = 1", "Some partition key parts are missing: p"),
    ("DELETE a FROM $t WHERE p = 1", "Range deletions are not supported for specific columns"),
    ("DELETE c FROM $t WHERE p = 1 AND c = 1", "Invalid identifier c for deletion (should not be a PRIMARY KEY part)"),
    ("DELETE a FROM $t WHERE p=1 AND c > 1", "Range deletions are not supported for specific columns"),
    ("DELETE zz FROM $t WHERE p=1 AND c = 1", "Undefined column name zz in table $ks.$t"),
    ("DELETE FROM $t WHERE p=1 AND b = 'x'", "Non PRIMARY KEY columns found in where clause: b "),
    ("DELETE FROM $t WHERE p = 1 AND c != 1", 'Unsupported "!=" relation: c != 1'),
    (
        "DELETE s FROM $t WHERE p = 77 AND c = 1",
        "Invalid restrictions on clustering columns since the DELETE statement modifies only static columns",
    ),
    ("DELETE p FROM $t WHERE p=1", "Invalid identifier p for deletion (should not be a PRIMARY KEY part)"),
    (
        "BEGIN BATCH USING TIMESTAMP 5 INSERT INTO $t (p,c) VALUES (1,1) USING TIMESTAMP 6; APPLY BATCH",
        "Timestamp must be set either on BATCH or individual statements",
    ),
    (
        "BEGIN BATCH USING TTL 5 INSERT INTO $t (p,c) VALUES (1,1); APPLY BATCH",
        "Global TTL on the BATCH statement is not supported.",
    ),
    ("BEGIN BATCH INSERT INTO $t (p,c) VALUES (1,null); APPLY BATCH", "Invalid null value in condition for column c"),
    ("INSERT INTO $t (p) VALUES (1) USING TTL 5 AND TTL 6", "Some clustering keys are missing: c"),
    ("USE nowhere_1", "Keyspace 'nowhere_1' does not exist"),
    ("TRUNCATE nowhere", "table nowhere does not exist"),
    ("DROP TABLE nowhere", "Table '$ks.nowhere' doesn't exist"),
    ("ALTER TABLE nowhere ADD x int", "Table '$ks.nowhere' doesn't exist"),
    ("ALTER TABLE $t ADD a int", "Column with name 'a' already exists"),
    ("CREATE TABLE x1 (p int)", "No PRIMARY KEY specifed for table 'x1' (exactly one required)"),
    ("CREATE TABLE x1 (p int PRIMARY KEY, p int)", "Duplicate column 'p' declaration for table 'x1'"),
    ("CREATE TABLE x1 (p int, PRIMARY KEY (q))", "Unknown column 'q' referenced in PRIMARY KEY for table 'x1'"),
    ("CREATE TABLE x1 (p int, a int, PRIMARY KEY (p, p))", "Duplicate column 'p' in PRIMARY KEY clause for table 'x1'"),
    (
        "CREATE TABLE x1 (p int PRIMARY KEY, s int static)",
        "Static columns are only useful (and thus allowed) if the table has at least one clustering column",
    ),
    ("CREATE TABLE x1 (p int static PRIMARY KEY)", "Static column 'p' cannot be part of the PRIMARY KEY"),
    (
        "CREATE TABLE x1 (p int, c int, PRIMARY KEY (p, c)) WITH CLUSTERING ORDER BY (z DESC)",
        "Only clustering key columns can be defined in CLUSTERING ORDER directive: [z] are not clustering columns",
    ),
    (
        "CREATE TABLE x1 (p int, c int, d int, PRIMARY KEY (p, c, d)) WITH CLUSTERING ORDER BY (d DESC)",
        "Missing CLUSTERING ORDER for column c",
    ),
    ("CREATE TABLE x1 (p nonsense PRIMARY KEY)", "Unknown type $ks.nonsense"),
    (
        "CREATE TABLE x1 (p int PRIMARY KEY, q int PRIMARY KEY)",
        "Multiple PRIMARY KEY specified for table 'x1' (exactly one required)",
    ),
    ("CREATE TABLE nowhere_1.x1 (p int PRIMARY KEY)", "Keyspace 'nowhere_1' doesn't exist"),
    ("DROP KEYSPACE nowhere_1", "Keyspace 'nowhere_1' doesn't exist"),
    ("ALTER TABLE $t ADD c int", "Column with name 'c' already exists"),
    ("SELECT a FROM $t WHERE p = ?", "Invalid amount of bind variables"),
    ("ALTER TABLE $t ADD zz nonsense", "Unknown type $ks.nonsense"),
    (
        "CREATE TABLE x1 (p int, c int, PRIMARY KEY (p, c)) WITH CLUSTERING ORDER BY (p DESC)",
        "Only clustering key columns can be defined in CLUSTERING ORDER directive: [p] are not clustering columns",
    ),
    (
        "CREATE TABLE x1 (p int, c int, d int, PRIMARY KEY (p, c, d)) WITH CLUSTERING ORDER BY (d DESC, c DESC)",
        "The order of columns in the CLUSTERING ORDER directive must match that of the clustering columns (c must appear before d)",
    ),
    (
        "SELECT a FROM $t WHERE p = 1 AND c IN (1,2) AND c = 1",
        "c cannot be restricted by more than one relation if it includes a IN",
    ),
    (
        "SELECT a FROM $t WHERE p = 1 AND c > 1 AND c IN (1,2)",
        'Column "c" cannot be restricted by both an equality and an inequality relation',
    ),
    (
        "SELECT a FROM $t WHERE p=1 AND a = 1 AND a = 2 ALLOW FILTERING",
        "a cannot be restricted by more than one relation if it includes an Equal",
    ),
    (
        "SELECT a FROM $t WHERE p=1 AND a > 1 AND a = 2 ALLOW FILTERING",
        'Column "a" cannot be restricted by both an equality and an inequality relation',
    ),
    (
        "SELECT a FROM $t WHERE p=1 AND a > 1 AND a > 2 ALLOW FILTERING",
        "More than one restriction was found for the start bound on a",
    ),
    (
        "UPDATE $t SET a = 5 WHERE p = 1 AND c = 1 AND c = 2",
        "c cannot be restricted by more than one relation if it includes an Equal",
    ),
    ("SELECT a FROM $t WHERE p IN (1, null)", "Invalid null value in condition for column p"),
    ("SELECT a FROM $t WHERE token(p, c) > 1", "The token() function must contains only partition key components"),
    ("TRUNCATE TABLE nowhere_1.x", "keyspace nowhere_1 does not exist"),
    ("INSERT INTO nowhere (p) VALUES (1)", "table nowhere does not exist"),
    ("UPDATE nowhere SET a = 1 WHERE p = 1", "table nowhere does not exist"),
    ("DELETE FROM nowhere WHERE p = 1", "table nowhere does not exist"),
    ("INSERT INTO nowhere_1.x (p) VALUES (1)", "keyspace nowhere_1 does not exist"),
    (
        "SELECT a FROM $t WHERE p=1 AND (p) = (1)",
        "Multi-column relations can only be applied to clustering columns but was applied to: p",
    ),
    ("SELECT a FROM $t WHERE p=1 AND (c, c) = (1, 1)", 'Column "c" appeared twice in a relation: (c, c) = (1, 1)'),
    ("SELECT a FROM $t WHERE p=1 AND (c) = (1, 2)", "Expected 1 elements in value tuple, but got 2: (1, 2)"),
]

WRONG_VALUES = [
    ("INSERT INTO $t (p,c,a) VALUES (?,?,?)", (1,), "Invalid unset value for column c"),
    ("INSERT INTO $t (p,c,a) VALUES (?,?,?)", (1, None, 3), "Invalid null value in condition for column c"),
    ("INSERT INTO $t (p,c,a) VALUES (?,?,?)", (None, 1, 3), "Invalid null value in condition for column p"),
    ("INSERT INTO $t (p,c,a) VALUES (?,?,?) USING TIMESTAMP ?", (1, 1, 1, None), "Invalid null value of timestamp"),
    (
        "INSERT INTO $t (p,c,a) VALUES (?,?,?) USING TTL ?",
        (1, 1, 1, -1),
        "A TTL must be greater or equal to 0, but was -1",
    ),
    (
        "INSERT INTO $t (p,c,a) VALUES (?,?,?) USING TTL ?",
        (1, 1, 1, 1000000000),
        "ttl is too large. requested (1000000000) maximum (630720000)",
    ),
    ("SELECT a FROM $t WHERE p=? AND c=?", (1, None), "Invalid null value in condition for column c"),
    ("SELECT a FROM $t WHERE p=? AND c=?", (None, 1), "Invalid null value in condition for column p"),
    ("SELECT a FROM $t WHERE p=? AND c=?", (1,), "Invalid unset value for column c"),
    ("SELECT a FROM $t WHERE p=? AND c>?", (1,), "Invalid unset value for column c"),
    ("SELECT a FROM $t WHERE p=? AND c IN ?", (1, None), "Invalid null value for column c"),
    ("SELECT a FROM $t WHERE p=? AND c IN ?", (1, [None]), "Invalid null value in condition for column c"),
    ("SELECT a FROM $t WHERE p=? AND c IN ?", (1,), "Invalid unset value for column c"),
    ("SELECT a FROM $t WHERE p=? AND c IN (?,?)", (1, 2), "Invalid unset value for column c"),
    ("SELECT a FROM $t WHERE p IN ? AND c=1", (None,), "Invalid null value for column p"),
    ("SELECT a FROM $t WHERE p IN ? AND c=1", ([1, None],), "Invalid null value in condition for column p"),
    ("SELECT a FROM $t WHERE p=? LIMIT ?", (1, None), "Invalid null value of limit"),
    ("SELECT a FROM $t WHERE p=? LIMIT ?", (1, 0), "LIMIT must be strictly positive"),
    ("SELECT a FROM $t WHERE p=? LIMIT ?", (1, -1), "LIMIT must be strictly positive"),
    ("SELECT a FROM $t WHERE p=? PER PARTITION LIMIT ?", (1, 0), "LIMIT must be strictly positive"),
    ("SELECT a FROM $t WHERE p=? PER PARTITION LIMIT ?", (1, None), "Invalid null value of limit"),
    ("SELECT a FROM $t WHERE token(p) > ?", (None,), "Invalid null token value"),
    ("SELECT a FROM $t WHERE p=1 AND a = ? ALLOW FILTERING", (None,), "Unsupported null value for column a"),
    ("SELECT a FROM $t WHERE p=1 AND a = ? ALLOW FILTERING", (), "Unsupported unset value for column a"),
    ("SELECT a FROM $t WHERE p=1 AND (c) > (?)", (None,), "Invalid null value in condition for column c"),
    ("SELECT a FROM $t WHERE p=1 AND (c) = (?)", (None,), "Invalid null value for column c"),
    ("SELECT a FROM $t WHERE p=1 AND (c) > (?)", (), "Invalid unset value for tuple field number 0"),
    ("UPDATE $t SET a=1 WHERE p=1 AND c=?", (None,), "Invalid null value in condition for column c"),
    ("UPDATE $t SET a=1 WHERE p=1 AND c=?", (), "Invalid unset value for column c"),
    ("DELETE FROM $t WHERE p=1 AND c=?", (), "Invalid unset value for column c"),
    ("DELETE FROM $t WHERE p=1 AND c=?", (None,), "Invalid null value in condition for column c"),
    ("DELETE FROM $t WHERE p=1 AND c>?", (), "Invalid unset value for column c"),
    ("DELETE FROM $t USING TIMESTAMP ? WHERE p=1 AND c>1", (None,), "Invalid null value of timestamp"),
]

WRONG_CONFIGURATION = [
    (
        "CREATE KEYSPACE $n WITH replication = {'class': 'Nonsense', 'replication_factor': 1}",
        "Unable to find replication strategy class 'org.apache.cassandra.locator.Nonsense'",
    ),
    ("CREATE KEYSPACE $n WITH replication = {'replication_factor': 1}", "Missing replication strategy class"),
    (
        "CREATE KEYSPACE $n WITH replication = {'class': 'SimpleStrategy', 'replication_factor': -1}",
        "Replication factor must be non-negative, found -1",
    ),
    (
        "CREATE KEYSPACE $n WITH replication = {'class': 'NetworkTopologyStrategy', 'nowhere': 1}",
        "Unrecognized strategy option {nowhere} passed to NetworkTopologyStrategy for keyspace $n",
    ),
    (
        "CREATE TABLE $n (p int PRIMARY KEY) WITH default_time_to_live = -1",
        "default_time_to_live must be greater than or equal to 0 (got -1)",
    ),
]

NOT_CQL = [
    "SELEC a FROM $t",
    "",
    "SELECT a FROM $t WHERE",
    "SELECT a FROM",
    "SELECT a FROM $t WHERE p = ",
    "SELECT a FROM $t WHERE p == 1",
    "SELECT a FROM $t WHERE p = 'unterminated",
    "SELECT a FROM $t; SELECT a FROM $t",
    "SELECT select FROM $t",
    "SELECT *, a FROM $t",
    "SELECT a FROM $t WHERE p = 1 LIMIT 'x'",
    "SELECT a FROM $t WHERE p = 1 LIMIT null",
    "INSERT INTO $t VALUES (1)",
    "INSERT INTO $t (p, c, a) VALUES (1, 1, 1) USING TTL null",
    "INSERT INTO $t (p, c, a) VALUES (1, 1, 1) USING TIMESTAMP null",
    "INSERT INTO $t (p, c, a) VALUES (1, 1, 1) USING TTL 'x'",
    "INSERT INTO $t (p, c, a) VALUES (1, 1, 1) USING TTL 5 IF NOT EXISTS",
    "UPDATE $t SET a = 5",
    "UPDATE $t SET WHERE p = 1",
    "UPDATE $t SET a = 5, a = 6 WHERE p = 1 AND c = 1",
    "DELETE FROM $t",
    "DELETE FROM $t USING TTL 5 WHERE p = 1",
    "BEGIN BATCH SELECT a FROM $t; APPLY BATCH",
    "CREATE TABLE x",
    "CREATE TABLE x (p int PRIMARY KEY) WITH nonsense = 5",
    "CREATE TABLE x (p int PRIMARY KEY) WITH default_time_to_live = 'x'",
    "CREATE KEYSPACE x",
]


def filled(t, text):
    return t.text(text.replace("$ks", t.store.side.keyspace).replace("$n", "never_made"))


@pytest.mark.parametrize(("query", "message"), WRONG_STATEMENTS, ids=[query for query, _ in WRONG_STATEMENTS])
def test_wrong_statements(t, query, message):
    assert t.store.refuse(filled(t, query)) == ("InvalidRequest", filled(t, message))


@pytest.mark.parametrize(
    ("query", "values", "message"), WRONG_VALUES, ids=[f"{query} {values}" for query, values, _ in WRONG_VALUES]
)
def test_wrong_values(t, query, values, message):
    prepared = t.store.prepare(filled(t, query))
    assert t.store.refuse(prepared, values) == ("InvalidRequest", filled(t, message))


@pytest.mark.parametrize(("query", "message"), WRONG_CONFIGURATION, ids=[query for query, _ in WRONG_CONFIGURATION])
def test_wrong_configuration(t, query, message):
    kind, said = t.store.refuse(filled(t, query))
    assert (kind, said.rstrip('">')) == ("ConfigurationException", filled(t, message))


@pytest.mark.parametrize("query", NOT_CQL)
def test_what_is_not_cql(t, query):
    assert t.store.refuse(t.text(query))[0] == "SyntaxException"


def test_errors_carry_what_the_driver_reads_from_the_wire(t):
    with pytest.raises(Exception, match="Undefined column name") as caught:
        t.run("SELECT nothing FROM $t")
    assert str(caught.value).startswith('Error from server: code=2200 [Invalid query] message="')
    with pytest.raises(Exception, match="Syntax error in CQL query") as caught:
        t.run("SELEC a FROM $t")
    assert "code=2000 [Syntax error in CQL query]" in str(caught.value)


def test_prepare_refuses_at_once(t):
    with pytest.raises(Exception, match="Undefined column name nothing in table"):
        t.store.prepare(t.text("SELECT nothing FROM $t"))


@pytest.fixture(scope="session")
def single(side):
    """A table of a keyspace with one replica, whatever the number of nodes."""
    keyspace = f"{side.keyspace}_single"
    side.session.execute(
        f"CREATE KEYSPACE {keyspace} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 1}}"
    )
    side.session.execute(f"CREATE TABLE {keyspace}.t (p int PRIMARY KEY, v int)")
    yield f"{keyspace}.t"
    side.session.execute(f"DROP KEYSPACE {keyspace}")


@pytest.mark.parametrize("query", ["SELECT v FROM $t WHERE p = 1", "INSERT INTO $t (p, v) VALUES (1, 1)"])
@pytest.mark.parametrize(("level", "required"), [(ConsistencyLevel.TWO, 2), (ConsistencyLevel.THREE, 3)])
def test_too_few_replicas_for_the_level(store, single, query, level, required):
    statement = SimpleStatement(
        query.replace("$t", single), consistency_level=level, retry_policy=FallthroughRetryPolicy()
    )
    with pytest.raises(Unavailable) as caught:
        store.session.execute(statement)
    error = caught.value
    assert (error.consistency, error.required_replicas, error.alive_replicas) == (level, required, 1)
    name = ConsistencyLevel.value_to_name[level]
    assert f'code=1000 [Unavailable exception] message="Cannot achieve consistency level {name}"' in str(error)


@pytest.mark.parametrize("level", [ConsistencyLevel.QUORUM, ConsistencyLevel.ALL, ConsistencyLevel.LOCAL_QUORUM])
def test_levels_that_one_replica_can_serve(store, single, level):
    key = store.key()
    store.run(f"INSERT INTO {single} (p, v) VALUES ({key}, 1)", consistency=level)
    assert store.run(f"SELECT v FROM {single} WHERE p = {key}", consistency=level) == [(1,)]


def test_levels_that_make_no_sense(t):
    def refused(query, level):
        return error_of(lambda: t.run(query, consistency=level))

    read, write = "SELECT a FROM $t WHERE p = $p", "INSERT INTO $t (p, c) VALUES ($p, 1)"
    assert refused(read, ConsistencyLevel.ANY) == (
        "InvalidRequest",
        "ANY ConsistencyLevel is only supported for writes",
    )
    for level in (ConsistencyLevel.SERIAL, ConsistencyLevel.LOCAL_SERIAL):
        assert refused(write, level) == (
            "InvalidRequest",
            "You must use conditional updates for serializable writes",
        )
    t.run(write, consistency=ConsistencyLevel.ANY)
