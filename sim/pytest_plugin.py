"""A pytest plugin: tests that hold for every seed.

    def test_orders_survive_crashes(sim_seed: int) -> None:
        hold_invariants(Scenario(seed=sim_seed, orders=100, faults="crash"))

runs once for each seed of `--sim-seeds A:B`, and

    @over_seeds(200)
    def test_more_of_them(sim_seed: int) -> None: ...

at least for that many. `--sim-replay FILE` runs `sim_scenario` tests with the scenario of a repro or a trace instead.
A test that parametrizes `sim_seed` itself runs with its own seeds only.
A failing test says which seed it was and the command that runs that one alone.
"""

from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import pytest

if TYPE_CHECKING:
    from sim.scenario import Scenario

DEFAULT_SEEDS: Final = "0:5"
SEED: Final = "sim_seed"
SCENARIO: Final = "sim_scenario"
_MARK: Final = "over_seeds"

Function = TypeVar("Function", bound=Callable[..., object])


def over_seeds(count: int) -> Callable[[Function], Function]:
    """Give a test that takes `sim_seed` or `sim_scenario` so many seeds at least, unless `--sim-seeds` names some."""
    if count < 1:
        raise ValueError(f"over_seeds wants a number of seeds, 1 or more, not {count}")
    mark: Callable[[Function], Function] = pytest.mark.over_seeds(count)
    return mark


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("exchange-sim", "deterministic simulation")
    group.addoption(
        "--sim-seeds", metavar="A:B", help=f"seeds from A up to, not including, B (default {DEFAULT_SEEDS})"
    )
    group.addoption("--sim-replay", metavar="FILE", help="run sim_scenario tests with this repro or trace instead")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", f"{_MARK}(count): run the test with at least so many seeds")
    _seeds(config.getoption("--sim-seeds") or DEFAULT_SEEDS)
    replayed = config.getoption("--sim-replay")
    if replayed is not None:
        from sim.scenario import ScenarioError
        from traces.manifest import TraceError

        try:
            _scenario_of(replayed)
        except (ScenarioError, TraceError) as error:
            raise pytest.UsageError(f"--sim-replay: {error}") from None


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    names = [name for name in _given_by_the_plugin(metafunc.definition) if name in metafunc.fixturenames]
    if not names:
        # On a class it may be meant for some of its tests.
        if any(mark.name == _MARK for mark in metafunc.definition.own_markers):
            raise pytest.Collector.CollectError(
                f"{metafunc.definition.nodeid}: over_seeds wants a test that takes {SEED} or {SCENARIO},"
                " and does not parametrize it itself"
            )
        return
    replayed = metafunc.config.getoption("--sim-replay")
    if SCENARIO in names and replayed is not None:
        metafunc.parametrize(names, [[replayed] * len(names)], ids=["replay"], indirect=True)
        return
    chosen = metafunc.config.getoption("--sim-seeds")
    seeds = _seeds(chosen or DEFAULT_SEEDS)
    mark = metafunc.definition.get_closest_marker(_MARK)
    if mark is not None and chosen is None:
        seeds = range(max(len(seeds), int(mark.args[0])))
    # Of one seed both, where a test takes both.
    rows = [[seed] * len(names) for seed in seeds]
    metafunc.parametrize(names, rows, ids=[f"seed={seed}" for seed in seeds], indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        # pytest gives no parameters to the methods of unittest's classes.
        if not hasattr(item, "callspec") and any(mark.name == _MARK for mark in item.own_markers):
            raise pytest.UsageError(f"{item.nodeid}: over_seeds wants a test of pytest's, not of unittest's")


@pytest.fixture
def sim_seed(request: pytest.FixtureRequest) -> int:
    """The test's seed; that of `--sim-replay`'s scenario, where the test takes the scenario too."""
    return _scenario_of(request.param).seed


@pytest.fixture
def sim_scenario(request: pytest.FixtureRequest) -> "Scenario":
    """The default scenario with the test's seed, or that of `--sim-replay`; change it with `dataclasses.replace`."""
    # Without a parameter the test parametrizes `sim_seed`.
    return _scenario_of(request.param if hasattr(request, "param") else request.getfixturevalue(SEED))


def _given_by_the_plugin(test: pytest.Item) -> list[str]:
    """Which of the two names get their values here: not those that the test parametrizes itself."""
    own: set[str] = set()
    for mark in test.iter_markers("parametrize"):
        names = (*mark.args, mark.kwargs.get("argnames", ""))[0]
        own.update(names.replace(",", " ").split() if isinstance(names, str) else names)
    if SEED in own:
        return []  # a scenario would be that of the test's seed
    return [SEED] if SCENARIO in own else [SEED, SCENARIO]


def _scenario_of(parameter: int | str) -> "Scenario":
    """That of a seed, or of a repro."""
    from sim.repro import read_repro
    from sim.scenario import Scenario

    return read_repro(Path(parameter)).scenario if isinstance(parameter, str) else Scenario(seed=parameter)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    seed = next((parameters[name] for name in _given_by_the_plugin(item) if name in parameters), None)
    if report.when == "call" and report.failed and isinstance(seed, int):
        test = item.nodeid.partition("[")[0]
        report.sections.append(("simulation", f"seed {seed}; again: pytest '{test}' --sim-seeds {seed}:{seed + 1}"))
    return report


def _seeds(text: str) -> range:
    first, _, end = text.partition(":")
    if not (first.isdecimal() and end.isdecimal() and int(first) < int(end)):
        raise pytest.UsageError(f"--sim-seeds wants A:B with A less than B, not {text!r}")
    return range(int(first), int(end))
