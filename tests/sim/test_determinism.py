"""One seed is one run: the same digest in another process, with another PYTHONHASHSEED."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import sys
from sim.progress import Progress
from sim.run import simulate
from sim.scenario import SECOND_NS, Scenario
scenario = Scenario(seed=int(sys.argv[1]), orders=60, users=5, duration_ns=5 * SECOND_NS)
print(simulate(scenario, Progress(sys.stderr)).recorder.digest())
"""


def digest(seed: int, hash_seed: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(seed)],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
    )
    return done.stdout.strip()


@pytest.mark.parametrize("seed", [3, 16])
def test_a_seed_has_one_digest_whatever_the_hash_seed(seed: int) -> None:
    first = digest(seed, "0")
    assert len(first) == 32
    assert first == digest(seed, "4242")


def test_two_seeds_have_two_digests() -> None:
    assert digest(3, "0") != digest(4, "0")
