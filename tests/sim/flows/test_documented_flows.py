"""The files of docs/flows.md are read to the last line."""

import re
from pathlib import Path

import pytest

from sim.flows.recorded import load_flow

PAGE = Path(__file__).parents[3] / "docs" / "flows.md"
FILES = re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.mark.parametrize("content", FILES, ids=["a market that is there", "a market of its own"])
def test_every_line_of_a_documented_file_is_applied(content: str, tmp_path: Path) -> None:
    path = tmp_path / "flow"
    path.write_text(content)
    flow = load_flow(path)
    assert flow.report.messages_not_applied == 0, list(flow.report.lines())
    assert flow.report.messages == len(content.splitlines())
