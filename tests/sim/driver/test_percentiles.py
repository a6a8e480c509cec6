from __future__ import annotations

from sim.driver.latency import Latency


def test_a_percentile_is_the_smallest_duration_that_so_many_do_not_exceed() -> None:
    latency = Latency([each * 1_000_000 for each in range(1, 201)])
    assert (latency.percentile_ms(50), latency.percentile_ms(99), latency.percentile_ms(100)) == (100.0, 198.0, 200.0)
    assert Latency([7_000_000]).percentile_ms(50) == 7.0
    assert Latency([]).as_dict() == {"count": 0, "median_ms": 0.0, "p99_ms": 0.0, "max_ms": 0.0}
