"""Where the seeds of a campaign run: processes of this machine, or the workers of an existing Dask cluster.

A worker that dies, for want of memory or by a signal, loses nothing but the seed that it ran, which runs again. Results
come in the order in which they are ready; nothing that a campaign says depends on that order.
"""

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from itertools import islice
from typing import Any, Final, Protocol, TypeVar

from pebble import ProcessExpired, ProcessPool

from sim.campaign.seeds import SeedResult
from sim.scenario import Scenario

SEEDS_PER_PROCESS: Final = 100
"""Crashed hosts stay in memory (sim.graveyard), some two megabytes a run, so worker processes are replaced from time to
time; to start one costs as much as two seeds."""
SEED_TIMEOUT_S: Final = 900
"""A seed that takes longer hangs: it counts as failed."""
ATTEMPTS_MAX: Final = 3
"""How often a seed is tried whose worker dies."""
CONNECT_TIMEOUT_S: Final = 10
IN_FLIGHT_PER_WORKER: Final = 2
"""So many seeds are handed out at once: enough that none waits for work, few enough that memory stays flat."""

R = TypeVar("R")
Work = Callable[[Scenario], SeedResult]


class WorkersError(Exception):
    """The workers cannot be used; the message is one line that says why."""


class Workers(Protocol):
    """Something that runs seeds."""

    def results(self, work: Work, scenarios: Iterable[Scenario]) -> Iterator[SeedResult]:
        """Do the work for each scenario; each result as soon as it is ready. Raises WorkersError."""


class LocalWorkers:
    """Processes of this machine, each with the same PYTHONHASHSEED."""

    def __init__(
        self,
        jobs: int,
        *,
        hash_seed: str = "1",
        tasks_per_process: int = SEEDS_PER_PROCESS,
        timeout_s: float = SEED_TIMEOUT_S,
    ) -> None:
        self._jobs = jobs
        self._hash_seed = hash_seed
        self._tasks_per_process = tasks_per_process
        self._timeout_s = timeout_s

    def results(self, work: Work, scenarios: Iterable[Scenario]) -> Iterator[SeedResult]:
        return self.outcomes(work, scenarios, _lost)

    def outcomes(
        self, work: Callable[[Scenario], R], scenarios: Iterable[Scenario], lost: Callable[[Scenario, str], R]
    ) -> Iterator[R]:
        """Any work for each scenario, which is asked for when a worker is free; each outcome as soon as it is ready.

        `lost` makes the outcome of a scenario whose worker died or hung, from the reason why.
        """
        context = multiprocessing.get_context("spawn")
        waiting = iter(scenarios)
        attempts: dict[Scenario, int] = {}
        running: dict[Future[Any], Scenario] = {}
        with (
            _environment(PYTHONHASHSEED=self._hash_seed),
            ProcessPool(self._jobs, max_tasks=self._tasks_per_process, context=context) as pool,
        ):

            def start(scenario: Scenario) -> None:
                attempts[scenario] = attempts.get(scenario, 0) + 1
                running[pool.schedule(work, args=[scenario], timeout=self._timeout_s)] = scenario

            try:
                for scenario in islice(waiting, self._jobs * IN_FLIGHT_PER_WORKER):
                    start(scenario)
                while running:
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        scenario = running.pop(future)
                        try:
                            result = future.result()
                        except ProcessExpired as error:
                            if attempts[scenario] < ATTEMPTS_MAX:
                                start(scenario)
                                continue
                            why = f"its worker died {ATTEMPTS_MAX} times, exit code {error.exitcode}"
                            result = lost(scenario, why)
                        except TimeoutError:
                            result = lost(scenario, f"it did not end in {self._timeout_s:g} s")
                        del attempts[scenario]
                        for following in islice(waiting, 1):
                            start(following)
                        yield result
            except BaseException:
                # What is half done is of no use to anybody: a campaign that is stopped stops at once.
                pool.stop()
                raise


class DaskWorkers:
    """The workers of a running dask.distributed cluster, whatever started it."""

    def __init__(self, address: str) -> None:
        try:
            from distributed import Client
        except ImportError:
            raise WorkersError("--scheduler needs dask.distributed: pip install 'exchange-sim[cluster]'") from None
        try:
            self._client = Client(address, timeout=CONNECT_TIMEOUT_S)
        except (OSError, TimeoutError, ValueError) as error:
            raise WorkersError(f"no Dask scheduler answers at {address}: {error}") from None
        try:
            self._check(address)
        except BaseException:
            self._client.close()
            raise

    def results(self, work: Work, scenarios: Iterable[Scenario]) -> Iterator[SeedResult]:
        """As `Workers.results`, once: the connection is closed when it ends."""
        from distributed import as_completed

        waiting = iter(scenarios)
        attempts: dict[Scenario, int] = {}
        running: dict[Any, Scenario] = {}

        def start(scenario: Scenario) -> Any:
            attempts[scenario] = attempts.get(scenario, 0) + 1
            # Pure work under one key would be answered from the cluster's memory when a seed runs twice.
            future = self._client.submit(work, scenario, pure=False)
            running[future] = scenario
            return future

        try:
            # One each: the scheduler blames whatever a dying worker had at hand.
            ready = as_completed([start(scenario) for scenario in islice(waiting, len(self._client.nthreads()))])
            for future in ready:
                scenario = running.pop(future)
                try:
                    result = future.result()
                except Exception as error:  # the scheduler has given up, on this seed or on one beside it
                    if attempts[scenario] < ATTEMPTS_MAX:
                        ready.add(start(scenario))
                        continue
                    result = _lost(scenario, f"{type(error).__name__}: {error}")
                del attempts[scenario]
                for following in islice(waiting, 1):
                    ready.add(start(following))
                yield result
        finally:
            self._client.close()

    def _check(self, address: str) -> None:
        from traces.manifest import package_versions

        threads = self._client.nthreads()
        if not threads:
            raise WorkersError(f"the cluster at {address} has no workers")
        if any(count != 1 for count in threads.values()):
            # A run replaces module attributes while it lasts (sim.escape, sim.defects): one at a time in a process.
            raise WorkersError("each Dask worker must have one thread: start them with --nthreads 1")
        here = package_versions()
        try:
            there = self._client.run(package_versions)
        except ModuleNotFoundError as error:
            raise WorkersError(f"a worker of {address} has no exchange-sim: {error}") from None
        for worker, versions in sorted(there.items()):
            if versions != here:
                differing = ", ".join(name for name in here if versions.get(name) != here[name])
                raise WorkersError(f"worker {worker} has other versions than this process: {differing or 'of more'}")


def _lost(scenario: Scenario, why: str) -> SeedResult:
    return SeedResult(seed=scenario.seed, error=why)


@contextmanager
def _environment(**variables: str) -> Iterator[None]:
    """Set environment variables for child processes that are started inside."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
