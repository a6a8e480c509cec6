from gzip import compress
from itertools import pairwise
from pathlib import Path

import pytest

from sim.flows.operations import PLACE, READ
from sim.flows.recorded import load_flow
from sim.flows.report import FlowError

LOBSTER = b"1.0,1,1,5,5,1\n"


def refusal(path: Path) -> str:
    with pytest.raises(FlowError) as caught:
        load_flow(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    return message


def test_a_missing_file(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "nothing")


def test_a_folder(tmp_path: Path) -> None:
    assert "cannot be read" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        pytest.param(b"", "the file is empty", id="empty"),
        pytest.param(compress(b""), "the file is empty", id="nothing compressed"),
        pytest.param(
            b"PK\x03\x04 something else",
            "neither NASDAQ ITCH 5.0, nor a LOBSTER message file, nor JSON lines",
            id="zip",
        ),
        pytest.param(b"\x00", "neither", id="zero byte"),
        pytest.param(b"<html>", "neither", id="html"),
        pytest.param(compress(LOBSTER)[:-6], "cannot be read", id="gzip without its trailer"),
        pytest.param(compress(LOBSTER)[:12], "cannot be read", id="gzip cut in its data"),
        pytest.param(b"\x1f\x8b", "cannot be read", id="gzip of two bytes"),
        pytest.param(b"\x1f\x8bgarbage", "cannot be read", id="gzip with a broken header"),
        pytest.param(compress(LOBSTER)[:-8] + b"\0" * 8, "cannot be read", id="gzip with a wrong checksum"),
        pytest.param(compress(LOBSTER)[:12] + b"\xff" * 20, "cannot be read", id="gzip with broken data"),
        pytest.param(b"{}\n", 'expected a JSON object with a "type"', id="json without a type"),
    ],
)
def test_a_file_that_is_no_flow(tmp_path: Path, data: bytes, complaint: str) -> None:
    path = tmp_path / "flow.json"
    path.write_bytes(data)
    assert complaint in refusal(path)


@pytest.mark.parametrize("name", ["flow.csv", "flow.json", "flow.ITCH50.gz", "flow"])
def test_the_format_is_known_by_content_and_not_by_name(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(compress(LOBSTER))
    assert load_flow(path).report.kind == "LOBSTER message file"


def test_the_report_counts_the_operations_of_the_flow(tmp_path: Path) -> None:
    path = tmp_path / "flow"
    path.write_bytes(LOBSTER)
    flow = load_flow(path)
    assert flow.report.operations == len(flow.operations) == 2
    assert flow.report.as_dict()["messages"] == 1


def test_partitions_are_as_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "flow"
    path.write_bytes(LOBSTER)
    topology = load_flow(path, user_partitions=5, symbol_partitions=4).topology
    assert (topology.user_partitions, topology.symbol_partitions) == (5, 1)


def test_users_of_a_feed_look_at_some_of_their_orders_again_and_again(tmp_path: Path) -> None:
    path = tmp_path / "flow"
    path.write_bytes(b"".join(b"%d.0,1,%d,5,5,1\n" % (second, second) for second in range(1, 301)))
    operations = load_flow(path).operations
    owners = {each.request_id: each.user_id for each in operations if each.kind == PLACE}
    looks = [each for each in operations if each.kind == READ]
    assert {each.query for each in looks} == {"order", "active_orders"}
    singles = [each for each in looks if each.query == "order"]
    assert all(owners[each.reference] == each.user_id for each in singles)
    assert sum(each.reference == "50" for each in singles) == 3
    assert all(before.at_ns <= after.at_ns for before, after in pairwise(operations))
