"""Strikes of one fault that overlap."""

from sim.overlap import Overlap


def test_the_strongest_counts_and_each_ends_by_itself() -> None:
    told: list[int] = []
    overlap = Overlap(told.append)
    end_weak = overlap.begin(10)
    end_strong = overlap.begin(30)
    end_strong()
    end_weak()
    assert told == [10, 30, 10, 0]


def test_of_either_sign_the_farthest_from_0_counts() -> None:
    told: list[int] = []
    overlap = Overlap(told.append)
    overlap.begin(20)
    end = overlap.begin(-30)
    overlap.begin(30)
    end()
    assert told == [20, -30, -30, 30]


def test_an_end_that_comes_twice_or_after_all_were_ended_takes_nothing_from_another() -> None:
    told: list[int] = []
    overlap = Overlap(told.append)
    end_first = overlap.begin(10)
    overlap.clear()
    overlap.begin(20)
    end_first()
    end_first()
    assert told == [10, 0, 20]
