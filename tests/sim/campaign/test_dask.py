"""Seeds on a dask.distributed cluster."""

import gc
import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import dask
import pytest
from distributed import Client, LocalCluster

from sim.campaign.seeds import run_seed
from sim.campaign.workers import DaskWorkers, WorkersError
from sim.scenario import Scenario
from tests.sim.campaign.test_workers import SMALL, die_always, hang, meet, scenarios, tell


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


def test_a_seed_that_kills_its_workers_fails_and_the_others_go_on() -> None:
    few_deaths = dask.config.set({"distributed.scheduler.allowed-failures": 1})
    with few_deaths, cluster(threads=1) as address:
        results = DaskWorkers(address).results(die_always, [Scenario(seed=n) for n in range(4)])
        found = {each.seed: each for each in results}
    assert sorted(found) == [0, 1, 2, 3]
    assert not found[1].passed
    assert "KilledWorker" in found[1].error_line
    assert [found[n].passed for n in (0, 2, 3)] == [True, True, True]


def test_a_seed_that_hangs_fails_and_the_others_go_on(address: str) -> None:
    workers = DaskWorkers(address, timeout_s=8)
    found = {each.seed: each for each in workers.results(hang, [Scenario(seed=n) for n in range(6)])}
    assert sorted(found) == [0, 1, 2, 3, 4, 5]
    assert found[1].error_line == "did not run: it did not end in 8 s"
    assert [seed for seed, each in found.items() if each.is_lost] == [1]


def test_a_scenario_may_be_asked_for_twice(address: str) -> None:
    assert [each.seed for each in DaskWorkers(address).results(tell, [SMALL, SMALL])] == [0, 0]


def test_a_scheduler_that_dies_ends_the_campaign(tmp_path: Path) -> None:
    with scheduler_process(tmp_path) as (scheduler, address):
        results = DaskWorkers(address).results(hang, [Scenario(seed=n) for n in range(4)])
        assert next(results).seed == 0
        scheduler.kill()
        with pytest.raises(WorkersError, match=f"the Dask scheduler at {address} is gone"):
            next(results)


def test_a_cluster_whose_last_worker_hangs_and_cannot_be_started_again(tmp_path: Path) -> None:
    with scheduler_process(tmp_path) as (_, address):
        workers = DaskWorkers(address, timeout_s=8, no_workers_s=5)
        results = workers.results(hang, [Scenario(seed=n) for n in range(4)])
        assert [next(results).is_lost, next(results).is_lost] == [False, True]
        with pytest.raises(WorkersError, match="no workers any more"):
            next(results)


def test_a_cluster_that_grows_gets_more_work(tmp_path: Path) -> None:
    with scheduler_process(tmp_path) as (_, address):
        results = DaskWorkers(address, timeout_s=60).results(meet, scenarios(3, tmp_path))
        assert next(results).seed == 0
        with dask_process(tmp_path, "worker", "--nthreads", "1", "--no-nanny") as second:
            try:
                assert sorted((each.seed, each.error) for each in results) == [(1, ""), (2, "")]
            finally:
                second.kill()


def dask_process(folder: Path, what: str, *options: str) -> subprocess.Popen[bytes]:
    """A scheduler or a worker in a process of its own."""
    where = ["--scheduler-file", str(folder / "scheduler.json"), "--host", "127.0.0.1", "--no-dashboard"]
    command = [sys.executable, "-m", f"distributed.cli.dask_{what}", *where, *options]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


@contextmanager
def scheduler_process(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A scheduler in a process of its own, with one worker that nobody starts again; its process and its address."""
    with (
        dask_process(folder, "scheduler", "--port", "0") as scheduler,
        dask_process(folder, "worker", "--nthreads", "1", "--no-nanny") as worker,
    ):
        try:
            with Client(scheduler_file=str(folder / "scheduler.json"), timeout=60) as client:
                client.wait_for_workers(1, timeout=60)
                address = client.scheduler.address
            yield scheduler, address
        finally:
            for process in (worker, scheduler):
                process.kill()


def test_workers_with_several_threads_are_refused() -> None:
    with cluster(threads=2) as address, pytest.raises(WorkersError, match="one thread"):
        DaskWorkers(address)


def test_no_scheduler_there() -> None:
    with pytest.raises(WorkersError, match="no Dask scheduler answers at"):
        DaskWorkers("127.0.0.1:1")
