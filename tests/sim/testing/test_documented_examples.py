"""The examples of docs/testing.md do what the page says."""

import re
from pathlib import Path

import pytest

import sim.testing  # noqa: F401 - numpy can be loaded once in a process, and pytester forgets what its runs import
from sim.commandline import app

pytest_plugins = ["pytester"]

PAGE = Path(__file__).parents[3] / "docs" / "testing.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
OPTIONS = ("-p", "no:cacheprovider", "-p", "no:xdist", "--sim-seeds", "0:2")


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 4


@pytest.mark.parametrize(("number", "tests"), [(0, 4), (1, 1), (2, 2), (3, 2)])
def test_an_example_passes(pytester: pytest.Pytester, number: int, tests: int) -> None:
    pytester.makepyfile(EXAMPLES[number])
    pytester.runpytest(*OPTIONS).assert_outcomes(passed=tests)


def test_a_service_that_commits_too_early_is_found(pytester: pytest.Pytester) -> None:
    lines = EXAMPLES[2].splitlines()
    commit = next(number for number, line in enumerate(lines) if "consumer.commit" in line)
    loop = next(number for number, line in enumerate(lines) if "for record in records" in line)
    lines.insert(loop, lines.pop(commit))
    pytester.makepyfile("\n".join(lines))
    outcomes = pytester.runpytest(*OPTIONS[:-1], "0:10").parseoutcomes()
    assert outcomes["failed"] > 0


def test_the_workflow_names_commands_and_options_that_there_are() -> None:
    workflow = re.search(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert workflow is not None
    campaign = next(each for each in app.registered_commands if each.callback and each.callback.__name__ == "campaign")
    assert campaign.callback is not None
    for option in re.findall(r"--([a-z]+) ", workflow[1]):
        assert option in campaign.callback.__annotations__
