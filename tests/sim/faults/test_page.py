"""The catalogue as people read it."""

import json
import subprocess
import sys
from pathlib import Path

from sim.faults.catalogue import KINDS, OPTIONS
from sim.faults.moments import MOMENTS
from sim.faults.page import as_data, lines, moments_as_data, page

DOCS = Path(__file__).parents[3] / "docs"


def test_the_page_is_what_the_catalogue_says() -> None:
    assert (DOCS / "faults.md").read_text() == page(), "run: exchange-sim faults --markdown > docs/faults.md"


def test_every_fault_and_every_moment_is_on_the_page() -> None:
    text = page()
    for name, option in OPTIONS.items():
        (row,) = [line for line in text.splitlines() if line.startswith(f"| `{name}` |")]
        assert option.meaning in row
        assert option.hits in row
        assert option.strength_meaning in row
    for moment in MOMENTS.values():
        assert f"| {moment.name} | {moment.meaning} |" in text


def test_what_is_said_of_a_kind_stands_under_its_name() -> None:
    text = page()
    told = [kind for kind in KINDS if kind.about]
    assert told
    for kind in told:
        assert f"## {kind.name[0].upper()}{kind.name[1:]}\n\n{kind.about}\n" in text


def test_every_fault_is_in_the_list_for_a_terminal() -> None:
    told = list(lines())
    assert [name for name in OPTIONS if f"  {name}" not in told] == []


def test_plain_data_has_each_parameter_of_a_fault() -> None:
    assert as_data()["lost-answers"] == {
        "kind": "Kafka",
        "meaning": OPTIONS["lost-answers"].meaning,
        "hits": "producer sends, transaction commits, offset commits",
        "strikes_per_minute": [2, 8],
        "duration_ms": [500, 5_000],
        "strength": [10_000, 300_000],
        "strength_meaning": "ppm of answers",
        "moments": ["in-commit", "between-write-and-commit", "during-recovery"],
        "is_always_aimed": False,
        "aimed_duration_ms": [2, 50],
        "aimed_strength": [500_000, 1_000_000],
        "breaks_assumption": False,
    }
    assert list(moments_as_data()) == list(MOMENTS)


def test_the_command_prints_one_json_object() -> None:
    command = [sys.executable, "-m", "sim", "faults", "--json"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert json.loads(printed) == {"faults": as_data(), "moments": moments_as_data()}
