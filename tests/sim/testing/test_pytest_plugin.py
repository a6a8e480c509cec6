"""The pytest plugin as other people's tests meet it."""

from pathlib import Path

import pytest

import sim.testing  # noqa: F401 - numpy can be loaded once in a process, and pytester forgets what its runs import
from sim.repro import Repro, read_repro
from sim.scenario import Scenario

pytest_plugins = ["pytester"]

OPTIONS = ("-p", "no:cacheprovider", "-p", "no:xdist")


def test_a_test_runs_once_for_each_seed(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(sim_seed): assert sim_seed >= 0")
    pytester.runpytest(*OPTIONS).assert_outcomes(passed=5)
    pytester.runpytest(*OPTIONS, "--sim-seeds", "10:13").assert_outcomes(passed=3)


def test_a_test_can_ask_for_more_seeds(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from sim.pytest_plugin import over_seeds

        @over_seeds(20)
        def test_it(sim_seed): assert sim_seed < 20
        """
    )
    pytester.runpytest(*OPTIONS, "--strict-markers").assert_outcomes(passed=20)
    pytester.runpytest(*OPTIONS, "--sim-seeds", "3:4").assert_outcomes(passed=1)


def test_asking_for_seeds_without_taking_them_is_an_error_of_one_line(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_mine="""
        from sim.pytest_plugin import over_seeds

        @over_seeds(20)
        def test_it(): pass
        """
    )
    result = pytester.runpytest(*OPTIONS)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["test_mine.py::test_it: over_seeds wants a test that takes sim_seed or sim_scenario*"])
    assert "Traceback" not in result.stdout.str()


def test_asking_for_seeds_for_a_method_of_unittest_is_an_error_of_one_line(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_mine="""
        from unittest import TestCase
        from sim.pytest_plugin import over_seeds

        class TestIt(TestCase):
            @over_seeds(20)
            def test_it(self): pass
        """
    )
    result = pytester.runpytest(*OPTIONS)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: test_mine.py::TestIt::test_it: over_seeds wants a test of pytest's*"])


def test_a_class_can_ask_for_seeds_for_those_of_its_tests_that_take_them(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from sim.pytest_plugin import over_seeds

        @over_seeds(7)
        class TestIt:
            def test_of_seeds(self, sim_seed): assert sim_seed < 7
            def test_of_none(self): pass
        """
    )
    pytester.runpytest(*OPTIONS).assert_outcomes(passed=8)


@pytest.mark.parametrize(
    "pins",
    ['"sim_seed", [17, 23]', '["sim_seed", "other"], [(17, 1), (23, 1)]', 'argnames="sim_seed", argvalues=(17, 23)'],
)
def test_a_test_that_gives_its_seeds_itself_keeps_them(pytester: pytest.Pytester, pins: str) -> None:
    pytester.makepyfile(
        f"""
        import pytest

        @pytest.fixture
        def other(): return 1

        @pytest.mark.parametrize({pins})
        def test_it(sim_seed, other): assert sim_seed in (17, 23)

        @pytest.mark.parametrize({pins})
        def test_its_scenario(sim_scenario, sim_seed, other): assert sim_scenario.seed == sim_seed
        """
    )
    pytester.runpytest(*OPTIONS, "--sim-seeds", "0:9").assert_outcomes(passed=4)


def test_a_test_that_gives_its_scenarios_itself_keeps_them(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("sim_scenario, other", [("mine", 1)])
        def test_it(sim_scenario, other): assert sim_scenario == "mine"
        """
    )
    pytester.runpytest(*OPTIONS).assert_outcomes(passed=1)


def test_a_failure_of_a_seed_of_the_test_itself_names_no_command_for_other_seeds(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.parametrize("sim_seed", [17])
        def test_it(sim_seed): assert sim_seed != 17
        """
    )
    result = pytester.runpytest(*OPTIONS)
    result.assert_outcomes(failed=1)
    assert "--sim-seeds" not in result.stdout.str()


def test_a_failure_names_its_seed_and_the_command_that_runs_it_alone(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_mine="def test_it(sim_seed): assert sim_seed != 3")
    result = pytester.runpytest(*OPTIONS)
    result.assert_outcomes(passed=4, failed=1)
    result.stdout.fnmatch_lines(["*seed 3; again: pytest 'test_mine.py::test_it' --sim-seeds 3:4*"])


def test_a_broken_pipeline_is_told_with_invariant_and_parting(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        from dataclasses import replace
        from sim.testing import hold_invariants

        SMALL = dict(orders=12, users=3, symbols=1, faults="none", duration_ns=1_000_000_000)

        def test_it(sim_scenario):
            # Seed 1 alone has the defect, which is otherwise no part of the scenario that is compared.
            import sim.testing
            scenario = replace(sim_scenario, **SMALL)
            if scenario.seed == 1:
                trace = next(iter(sim.testing._passed.values()))
                scenario = replace(scenario, defect="cancel-completion-missing")
                sim.testing._passed[replace(scenario, seed=0)] = trace
            hold_invariants(scenario)
        """
    )
    result = pytester.runpytest(*OPTIONS, "--sim-seeds", "0:2")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(
        [
            "*seed 1, digest *: exchange-sim run --seed 1 --orders 12 --users 3 *--defect cancel-completion-missing*",
            "*completion-once*violated*",
            "*the runs part at *",
            "*passing *",
            "*failing *",
        ]
    )


def test_a_repro_is_run_in_place_of_the_seeds(pytester: pytest.Pytester, tmp_path: Path) -> None:
    repro = tmp_path / "repro.json"
    Repro(Scenario(seed=77, orders=3), "", {}).write(repro)
    pytester.makepyfile("def test_it(sim_scenario): assert (sim_scenario.seed, sim_scenario.orders) == (77, 3)")
    pytester.runpytest(*OPTIONS, "--sim-replay", str(repro)).assert_outcomes(passed=1)


def test_seed_and_scenario_of_one_test_belong_together(pytester: pytest.Pytester, tmp_path: Path) -> None:
    repro = tmp_path / "repro.json"
    Repro(Scenario(seed=77), "", {}).write(repro)
    pytester.makepyfile("def test_it(sim_seed, sim_scenario): assert sim_seed == sim_scenario.seed")
    pytester.runpytest(*OPTIONS).assert_outcomes(passed=5)
    pytester.runpytest(*OPTIONS, "--sim-replay", str(repro)).assert_outcomes(passed=1)


def test_what_options_cannot_say_is_kept_as_a_repro(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_mine="""
        from dataclasses import replace
        from sim.testing import hold_invariants

        def test_it(sim_scenario):
            small = replace(sim_scenario, orders=12, users=3, symbols=1, faults="none", duration_ns=1_000_000_000)
            hold_invariants(replace(small, gateways=1, defect="cancel-completion-missing"))
        """
    )
    result = pytester.runpytest(*OPTIONS, "--sim-seeds", "1:2")
    result.assert_outcomes(failed=1)
    path = Path("runs") / "tests" / "test_mine.py-test_it-seed=1-.json"
    result.stdout.fnmatch_lines([f"*exchange-sim replay {path}"])
    repro = read_repro(pytester.path / path)
    assert (repro.scenario.gateways, repro.scenario.defect) == (1, "cancel-completion-missing")
    result.stdout.fnmatch_lines([f"*seed 1, digest {repro.digest}*"])
    # The message is what is shown, not the source of what found it.
    assert "def hold_invariants" not in result.stdout.str()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("--sim-seeds", "5"), "--sim-seeds wants A:B"),
        (("--sim-seeds", "5:4"), "--sim-seeds wants A:B"),
        (("--sim-replay", "nothing"), "--sim-replay: nothing: No such file"),
        (("--sim-replay", "test_of_no_repro.py"), "--sim-replay: test_of_no_repro.py: not a repro"),
    ],
)
def test_bad_options_are_usage_errors(pytester: pytest.Pytester, options: tuple[str, str], complaint: str) -> None:
    pytester.makepyfile(test_of_no_repro="def test_it(sim_scenario): pass")
    result = pytester.runpytest(*OPTIONS, *options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{complaint}*"])
