"""Seeds on a dask.distributed cluster."""

import gc
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from distributed import LocalCluster

from sim.campaign.seeds import run_seed
from sim.campaign.workers import DaskWorkers, WorkersError
from sim.scenario import Scenario
from tests.sim.campaign.test_workers import SMALL, die_always


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A cluster of two worker processes on this machine."""
    with cluster(threads=1) as at:
        yield at


@contextmanager
def cluster(threads: int) -> Iterator[str]:
    """The address of a cluster of two worker processes on this machine."""
    with LocalCluster(
        n_workers=2,
        threads_per_worker=threads,
        host="127.0.0.1",
        dashboard_address=":0",
        silence_logs=logging.CRITICAL,
    ) as running:
        yield str(running.scheduler_address)
    # One whose workers were killed does not always know that it is closed, and would say so in a later test.
    del running
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def test_seeds_run_on_the_cluster_and_come_to_what_they_come_to_here(address: str) -> None:
    scenarios = [replace(SMALL, seed=seed) for seed in range(2)]
    found = {each.seed: each for each in DaskWorkers(address).results(run_seed, scenarios)}
    assert {seed: each.digest for seed, each in found.items()} == {
        each.seed: run_seed(each).digest for each in scenarios
    }
    assert all(each.passed for each in found.values())


def test_a_seed_that_kills_its_workers_fails_and_the_others_go_on(address: str) -> None:
    found = {each.seed: each for each in DaskWorkers(address).results(die_always, [Scenario(seed=n) for n in range(4)])}
    assert sorted(found) == [0, 1, 2, 3]
    assert not found[1].passed
    assert "KilledWorker" in found[1].error_line
    assert [found[n].passed for n in (0, 2, 3)] == [True, True, True]


def test_workers_with_several_threads_are_refused() -> None:
    with cluster(threads=2) as address, pytest.raises(WorkersError, match="one thread"):
        DaskWorkers(address)


def test_no_scheduler_there() -> None:
    with pytest.raises(WorkersError, match="no Dask scheduler answers at"):
        DaskWorkers("127.0.0.1:1")
