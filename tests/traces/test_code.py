"""What a trace and a repro say of the code that made them."""

from pathlib import Path

import pytest

from sim.repro import Repro
from sim.scenario import Scenario
from traces import manifest
from traces.manifest import package_versions, source_digest


def test_the_digest_is_over_every_source_file_that_makes_a_run() -> None:
    names = [name for name, _ in manifest._source_files()]
    assert {"engine/book.py", "settlement/service.py", "sim/kafka/broker.py", "traces/invariants/rows.py"} <= set(names)
    assert names == sorted(names, key=lambda name: (manifest._CODE.index(name.partition("/")[0]), Path(name)))


def test_another_name_or_another_byte_is_another_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = []
    for name, content in (("a.py", "1"), ("b.py", "1"), ("b.py", "2")):
        path = tmp_path / name
        path.write_text(content)
        monkeypatch.setattr(manifest, "_source_files", lambda name=name, path=path: [(name, path)])
        digests.append(source_digest.__wrapped__())
    assert len(set(digests)) == 3


def test_a_repro_tells_other_code_from_a_run_that_is_not_deterministic() -> None:
    here = package_versions()
    assert "altered, or the run is not deterministic" in Repro(Scenario(), "d", here).difference_from_this_code()
    other = Repro(Scenario(), "d", {**here, "exchange-sim": "source 0", "simpy": "1"}).difference_from_this_code()
    assert other.startswith("versions differ (exchange-sim source 0 -> source ")
    assert "simpy 1 -> " in other
