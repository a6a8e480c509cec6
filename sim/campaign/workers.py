"""Where the seeds of a campaign run: processes of this machine, or the workers of an existing Dask cluster.

A worker that dies, for want of memory or by a signal, loses nothing but the seed that it ran, which runs again. Results
come in the order in which they are ready; nothing that a campaign says depends on that order.
"""

import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from queue import Empty, Queue
from typing import Any, Final, Protocol, TypeVar

from pebble import ProcessExpired, ProcessPool

from sim.campaign.seeds import SeedResult
from sim.scenario import Scenario

SEEDS_PER_PROCESS: Final = 100
"""Crashed hosts stay in memory (sim.graveyard), some two megabytes a run, so worker processes are replaced from time to
time; to start one costs as much as two seeds."""
SEED_TIMEOUT_S: Final = 900
"""A seed that takes longer hangs: it counts as failed, and its worker is replaced."""
ATTEMPTS_MAX: Final = 3
"""How often a seed is tried whose worker dies."""
CONNECT_TIMEOUT_S: Final = 10
ANSWER_TIMEOUT_S: Final = 30
"""A Dask scheduler that takes longer to answer is gone; a worker that hangs is replaced within it."""
QUIET_S: Final = 2.0
"""After so long without a result the Dask scheduler is asked whether it is still there."""
NO_WORKERS_S: Final = 300.0
"""A cluster that has had no workers for so long is gone too: a busy machine, or a queue of jobs, takes minutes to start
them again."""
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
        running: dict[Future[Any], _Attempt] = {}
        with (
            _environment(PYTHONHASHSEED=self._hash_seed),
            ProcessPool(self._jobs, max_tasks=self._tasks_per_process, context=context) as pool,
        ):

            def start(scenario: Scenario, number: int = 1) -> None:
                running[pool.schedule(work, args=[scenario], timeout=self._timeout_s)] = _Attempt(scenario, number)

            try:
                for scenario in islice(waiting, self._jobs * IN_FLIGHT_PER_WORKER):
                    start(scenario)
                while running:
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        attempt = running.pop(future)
                        try:
                            result = future.result()
                        except ProcessExpired as error:
                            if attempt.number < ATTEMPTS_MAX:
                                start(attempt.scenario, attempt.number + 1)
                                continue
                            why = f"its worker died {ATTEMPTS_MAX} times, exit code {error.exitcode}"
                            result = lost(attempt.scenario, why)
                        except TimeoutError:
                            result = lost(attempt.scenario, _did_not_end(self._timeout_s))
                        except Exception as error:  # the work never raises: the worker could not do it at all
                            result = lost(attempt.scenario, f"{type(error).__name__}: {error}")
                        for following in islice(waiting, 1):
                            start(following)
                        yield result
            except BaseException:
                # What is half done is of no use to anybody: a campaign that is stopped stops at once.
                pool.stop()
                raise


class DaskWorkers:
    """The workers of a running dask.distributed cluster, whatever started it."""

    def __init__(self, address: str, *, timeout_s: float = SEED_TIMEOUT_S, no_workers_s: float = NO_WORKERS_S) -> None:
        try:
            from distributed import Client
        except ImportError:
            raise WorkersError("--scheduler needs dask.distributed: pip install 'exchange-sim[cluster]'") from None
        self._address = address
        self._timeout_s = timeout_s
        self._no_workers_s = no_workers_s
        self._had_workers_s = time.monotonic()
        try:
            self._client = Client(address, timeout=CONNECT_TIMEOUT_S)
        except Exception as error:  # of an address that cannot be used it raises whatever its parts do
            raise WorkersError(f"no Dask scheduler answers at {address}: {error}") from None
        try:
            self._check(address)
        except BaseException:
            self._client.close()
            raise

    def results(self, work: Work, scenarios: Iterable[Scenario]) -> Iterator[SeedResult]:
        """As `Workers.results`, once: the connection is closed when it ends."""
        waiting = iter(scenarios)
        running: dict[Any, _Attempt] = {}
        ended: Queue[Any] = Queue()

        def start(scenario: Scenario, number: int = 1) -> None:
            # Pure work under one key would be answered from the cluster's memory when a seed runs twice.
            future = self._client.submit(work, scenario, pure=False)
            running[future] = _Attempt(scenario, number, began_s=time.monotonic())
            future.add_done_callback(ended.put)

        def start_more() -> None:
            # One each: the scheduler blames whatever a dying worker had at hand. Those that come later get work too.
            free = max(self._count_workers(), 1) - len(running)
            for scenario in islice(waiting, max(free, 0)):
                start(scenario)

        try:
            start_more()
            while running:
                future = self._next(ended, running)
                if future is None:
                    start_more()
                    continue
                attempt = running.pop(future)
                if attempt.hangs:
                    result = _lost(attempt.scenario, _did_not_end(self._timeout_s))
                else:
                    try:
                        # Its worker may have died before the result was fetched, which is then waited for again.
                        result = future.result(timeout=ANSWER_TIMEOUT_S)
                    except Exception as error:  # the scheduler has given up, on this seed or on one beside it
                        if attempt.number < ATTEMPTS_MAX:
                            start(attempt.scenario, attempt.number + 1)
                            continue
                        result = _lost(attempt.scenario, f"{type(error).__name__}: {error}")
                # First this one's worker: who asked may take long over the result.
                for following in islice(waiting, 1):
                    start(following)
                yield result
                start_more()
        finally:
            self._client.close()

    def _next(self, ended: "Queue[Any]", running: "dict[Any, _Attempt]") -> Any | None:
        """One that has ended, or that hung on a worker which is replaced by now; None when there is none yet.

        Raises WorkersError when the scheduler or all workers are gone.
        """
        overdue_s = time.monotonic() - self._timeout_s
        for future, attempt in running.items():
            if attempt.began_s < overdue_s and not future.done():
                attempt.hangs = self._replace_worker_of(future, running)
                if attempt.hangs:
                    return future
                attempt.began_s = time.monotonic()  # no worker has it: it still waits for one
        try:
            future = ended.get(timeout=min(QUIET_S, self._timeout_s))
        except Empty:
            if self._count_workers():
                self._had_workers_s = time.monotonic()
            elif time.monotonic() - self._had_workers_s > self._no_workers_s:
                raise self._deserted() from None
            return None
        self._had_workers_s = time.monotonic()
        if self._client.status != "running":
            raise self._gone()
        # One that hung tells of its end too.
        return future if future in running else None

    def _replace_worker_of(self, hung: Any, running: "dict[Any, _Attempt]") -> bool:
        """Replace the worker that has a seed, for nothing less would stop it. Says whether there was one."""
        processing = self._ask("processing")
        if not processing:
            raise self._deserted()
        for worker, keys in processing.items():
            if hung.key in keys:
                hung.cancel()
                try:
                    self._client.restart_workers([worker], timeout=ANSWER_TIMEOUT_S, raise_for_error=False)
                except ValueError:  # it has no nanny, which would start it again
                    self._client.retire_workers([worker], close_workers=True, remove=True)
                except Exception as error:
                    raise WorkersError(f"{worker} hangs and cannot be started again: {error}") from None
                for future, attempt in running.items():
                    if future.key in keys:
                        attempt.began_s = time.monotonic()  # what stood behind it begins only now
                return True
        return False

    def _count_workers(self) -> int:
        """How many workers the cluster has now. Raises WorkersError when one has several threads."""
        threads: dict[str, int] = self._ask("ncores")
        if any(count != 1 for count in threads.values()):
            # A run replaces module attributes while it lasts (sim.escape, sim.defects): one at a time in a process.
            raise WorkersError("each Dask worker must have one thread: start them with --nthreads 1")
        return len(threads)

    def _ask(self, question: str) -> Any:
        """What the scheduler answers. Raises WorkersError when it does not."""
        try:
            return self._client.sync(getattr(self._client.scheduler, question), callback_timeout=ANSWER_TIMEOUT_S)
        except Exception as error:  # a lost connection has many names
            raise self._gone() from error

    def _deserted(self) -> WorkersError:
        return WorkersError(f"the cluster at {self._address} has no workers any more; what had ended by then is kept")

    def _gone(self) -> WorkersError:
        # What the client has to say of it while it is closed is not for the user.
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        return WorkersError(f"the Dask scheduler at {self._address} is gone; what had ended by then is kept")

    def _check(self, address: str) -> None:
        from traces.manifest import package_versions

        if not self._count_workers():
            raise WorkersError(f"the cluster at {address} has no workers")
        here = package_versions()
        try:
            there = self._client.run(package_versions)
        except Exception as error:  # what a worker without the package answers has many names
            raise WorkersError(f"a worker of {address} has no exchange-sim: {error}") from None
        for worker, versions in sorted(there.items()):
            if versions != here:
                differing = ", ".join(name for name in here if versions.get(name) != here[name])
                raise WorkersError(f"worker {worker} has other versions than this process: {differing or 'of more'}")


@dataclass
class _Attempt:
    """A scenario that was handed out."""

    scenario: Scenario
    number: int
    """How often it has been handed out, with this time."""
    began_s: float = 0.0
    hangs: bool = False


def _lost(scenario: Scenario, why: str) -> SeedResult:
    return SeedResult(seed=scenario.seed, error=why, is_lost=True)


def _did_not_end(timeout_s: float) -> str:
    return f"it did not end in {timeout_s:g} s"


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
