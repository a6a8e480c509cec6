"""Every benchmark still runs. What it measures is not judged here: a test that asserts a time fails some day."""

from math import isfinite

import pytest

from benchmarks.suite import SUITE, print_figures

NAMED_BY_SIZE = frozenset(("peak_mb_100000_orders",))
"""Figures that are not there at another size."""


@pytest.mark.parametrize("name", SUITE)
def test_benchmark_gives_its_figures(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    figures = SUITE[name].run(quick=True)
    assert figures
    assert all(isfinite(figure) and figure >= 0 for figure in figures.values())
    assert {target.figure for target in SUITE[name].targets} - NAMED_BY_SIZE <= set(figures)
    print_figures({name: figures}, json_wanted=False)
    shown = capsys.readouterr().out
    assert all(figure in shown for figure in figures)
