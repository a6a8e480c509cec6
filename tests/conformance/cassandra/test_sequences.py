"""Generated sequences of CQL operations, compared; few here, thousands by `exchange-sim conform cassandra`."""

from __future__ import annotations

import time

import pytest

from sim.conform.cassandra_operations import Statement, final_reads
from sim.conform.cassandra_sequences import Pair, run_sequences
from sim.conform.cassandra_sides import DoubleSide, server_side
from sim.conform.comparison import Difference

FEW = 40


def test_three_replicas_answer_as_one_does():
    """Reads at QUORUM join the answers of replicas that need not agree; one replica has nothing to join."""
    report = run_sequences(DoubleSide(), DoubleSide(nodes=1, factor=1), FEW, seed=1)
    assert report.differences == []
    assert report.sequences >= FEW


def test_the_double_answers_as_a_real_server_does(cassandra_address):
    keyspace = f"conform_sequences_{time.time_ns():x}"
    with server_side(cassandra_address, keyspace=keyspace) as server:
        report = run_sequences(DoubleSide(keyspace=keyspace), server, FEW, seed=2)
    assert report.differences == []
    assert report.sequences >= FEW


def test_a_difference_is_told_with_the_sequence_up_to_it():
    """Held against a side that forgets what is 'x'."""
    forgetful = DoubleSide(nodes=1, factor=1)
    execute = forgetful.session.execute

    def execute_and_forget(request, *arguments, **options):
        values = getattr(request, "values", None)
        if values is not None and "x" in values:
            return execute("UPDATE flat SET a = 1 WHERE p = -1")
        return execute(request, *arguments, **options)

    forgetful.session.execute = execute_and_forget
    pair = Pair(DoubleSide(), forgetful)
    write = "INSERT INTO flat (p, b) VALUES (?, ?)"
    with pytest.raises(Difference) as caught:
        pair.compare(
            [
                Statement(write, ("$p1", "y")),
                Statement(write, ("$p0", "x")),
                Statement("SELECT b FROM flat WHERE p = ?", ("$p0",)),
            ]
        )
    told = str(caught.value).splitlines()
    assert told[:4] == [
        "the double differs from the server",
        "  INSERT INTO flat (p, b) VALUES ($p1, 'y')",
        "  INSERT INTO flat (p, b) VALUES ($p0, 'x')",
        "> SELECT b FROM flat WHERE p = $p0",
    ]
    assert told[4:] == ["double: ('rows', ['b'], [1], [('x',)])", "server: ('rows', ['b'], [0], [])"]


def test_a_sequence_by_hand():
    pair = Pair(DoubleSide(), DoubleSide(nodes=1, factor=1))
    operations = [Statement("INSERT INTO flat (p, a) VALUES (?, ?) USING TTL ?", ("$p0", 5, 1000))]
    pair.compare(operations)
    assert pair.report.sequences == 1
    assert pair.report.operations == 1 + len(final_reads(operations))
    assert pair.report.rows == 1


def test_partitions_are_a_sequences_own():
    pair = Pair(DoubleSide(), DoubleSide(nodes=1, factor=1))
    for _ in range(3):
        pair.compare([Statement("UPDATE flat SET a = 1 WHERE p = ?", ("$p0",))])
    assert [row[0] for row in pair.double.side.session.execute("SELECT count(*) FROM flat")] == [3]
