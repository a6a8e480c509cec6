from __future__ import annotations

from pathlib import Path

import pytest

from live.cassandra import addresses
from live.namespace import Namespace
from live.options import ServeOptions, Servers, TopologyError, encode_topology, read_topology
from sim.flows.market import make_topology


def test_a_topology_is_read_as_it_was_written(tmp_path: Path) -> None:
    topology = make_topology(4, 5, 2)
    path = tmp_path / "topology.json"
    path.write_bytes(encode_topology(topology))
    read = read_topology(path)
    assert read.partitions() == topology.partitions()
    assert [*read.symbols] == [*topology.symbols]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"symbols": [], "user_partitions": 0}', b"\xff"])
def test_a_file_that_is_no_topology_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "topology.json"
    path.write_bytes(content)
    with pytest.raises(TopologyError, match="not a topology") as raised:
        read_topology(path)
    assert "\n" not in str(raised.value)


def test_a_missing_topology_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TopologyError, match=r"none\.json: No such file"):
        read_topology(tmp_path / "none.json")


def test_addresses_may_leave_the_port_out() -> None:
    assert addresses("a:1, b,[::1]:9", 9042) == [("a", 1), ("b", 9042), ("[::1]", 9)]


@pytest.mark.parametrize("text", ["", ":1", "a:", "a:x", "a:0", "a:70000", "a,,b"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not an address"):
        addresses(text, 1)


def test_each_instance_of_each_system_has_a_directory_of_its_own() -> None:
    def directory(namespace: str, instance: str) -> Path:
        servers = Servers("k:1", "c:1", Namespace(namespace))
        return ServeOptions(servers, make_topology(1, 1, 1), Path("data"), instance).directory("ubscore")

    assert directory("", "1") == Path("data/exchange/ubscore-1")
    assert directory("other", "2") == Path("data/other/ubscore-2")
