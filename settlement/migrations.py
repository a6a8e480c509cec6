"""Creating the tables, and making sure that a store is one this code can write (design section 4.5).

Any number of instances may start at once: every statement is IF NOT EXISTS or an INSERT of the same row, so they may
run twice and in any order. The version row is written after the statements of its step, so a start that died half-way
is finished by the next one.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

from cassandra import AlreadyExists, ConsistencyLevel, InvalidRequest

from schema.ports import Log, Randomness
from schema.tables import CREATE_VERSION_TABLE, SCHEMA_VERSION_TABLE, create_keyspace, migrations_after
from settlement.cql_adapter import CqlAdapter, PreparedStatement, Row, Statement
from settlement.retries import Backoff, is_retryable

COMPONENT: Final = "settlement"
"""Whose versions these are, in the table schema_version."""

_PREPARE_ATTEMPTS: Final = 8


class SchemaError(RuntimeError):
    """The store's tables are not what this code writes; the message says which and why."""


class SchemaSteps:
    """Runs schema statements, retrying what passes by waiting."""

    def __init__(self, cql: CqlAdapter, randomness: Randomness, log: Log, backoff: Backoff) -> None:
        self._cql = cql
        self._randomness = randomness
        self._log = log
        self._backoff = backoff

    async def create_keyspace(self, replication_factor: int, keyspace: str) -> None:
        """Create the keyspace if there is none; it cannot be the session's before."""
        await self._run(create_keyspace(replication_factor, keyspace))

    async def create_or_verify(self) -> int:
        """Bring the store to this code's schema version; returns the version it had (0: empty).

        Raises SchemaError when the store is newer than this code.
        """
        await self._run(CREATE_VERSION_TABLE)
        select = await self.prepare(f"SELECT version FROM {SCHEMA_VERSION_TABLE} WHERE component = ?")
        insert = await self.prepare(f"INSERT INTO {SCHEMA_VERSION_TABLE} (component, version) VALUES (?, ?)")
        rows = await self._run(select, (COMPONENT,))
        found = 0
        for row in rows:
            version = row[0]
            assert isinstance(version, int)
            found = max(found, version)
        try:
            steps = migrations_after(found)
        except ValueError as newer:
            raise SchemaError(f"{newer}: start a newer release of settlement, or use another keyspace") from None
        for step in steps:
            for statement in step.statements:
                await self._run(statement)
            await self._run(insert, (COMPONENT, step.version))
        return found

    async def prepare(self, query: str) -> PreparedStatement:
        """Prepare a statement for LOCAL_QUORUM, which also verifies that its table has the columns.

        A node that has not heard of a new table yet refuses it, so a refusal counts only when it lasts.
        Raises SchemaError when it does.
        """
        attempt = 0
        while True:
            try:
                statement = await self._cql.prepare(query)
            except Exception as error:
                is_refused = isinstance(error, InvalidRequest)
                if is_refused and attempt >= _PREPARE_ATTEMPTS:
                    raise SchemaError(f"the store refuses {query!r}: {error}") from error
                if not is_refused and not is_retryable(error):
                    raise
                await self._wait(query, error, attempt)
                attempt += 1
            else:
                statement.consistency_level = ConsistencyLevel.LOCAL_QUORUM
                # Reads are, and every write carries its own timestamp or is the same row: a second one changes nothing.
                statement.is_idempotent = True
                return statement

    async def _run(self, statement: Statement, parameters: Sequence[object] = ()) -> list[Row]:
        attempt = 0
        while True:
            try:
                return await self._cql.execute(statement, parameters)
            except AlreadyExists:
                return []  # another instance was faster
            except Exception as error:
                if not is_retryable(error):
                    raise SchemaError(f"the store refuses {statement!r}: {error}") from error
                await self._wait(statement, error, attempt)
                attempt += 1

    async def _wait(self, statement: Statement, error: Exception, attempt: int) -> None:
        self._log.warning(
            "schema statement failed, will be retried",
            error=type(error).__name__,
            attempt=attempt + 1,
            statement=str(statement)[:80],
        )
        await asyncio.sleep(self._backoff.delay_s(attempt, self._randomness))
