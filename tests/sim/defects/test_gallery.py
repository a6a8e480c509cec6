"""The gallery: each defect is caught by what must catch it, is gone after its run, and is one of the design's list."""

import sys
from pathlib import Path

import pytest

from sim.commandline import main
from sim.defects import GALLERY, Defect, Replacement, applied, named
from sim.faults.catalogue import OPTIONS
from sim.progress import Progress
from sim.run import simulate
from sim.scenario import SECOND_NS, SWARM, Scenario, ScenarioError
from traces.invariants import ORDER

DESIGN = {
    "the resting order's last fill emits no completion": "maker-completion-missing",
    "cancel emits none": "cancel-completion-missing",
    "settlement ignores the order events": "order-events-ignored",
    "live rows expire after 24 hours": "live-rows-expire",
    "a sequence gap is skipped": "gap-skipped",
    "offsets committed before the write": "offsets-before-rows",
    "a database error logged and dropped": "database-error-dropped",
    "a completion dropped because the lookup row is not there yet": "completion-without-lookup-dropped",
    "created_at taken from the clock": "created-at-from-clock",
    "server-side write timestamps": "server-side-timestamps",
    "filled quantity added on every replay": "fills-added-on-replay",
    "the engine's transaction replaced by a plain producer and an offset commit": "plain-producer",
    "a transaction committed although a delivery failed": "failed-delivery-committed",
    "reading uncommitted": "uncommitted-read",
    "resuming from the group's offset": "group-offset-resumed",
    "a snapshot one record off": "snapshot-one-record-off",
    "an old instance not fenced": "old-instance-not-fenced",
    "lifecycle events outside the hash": "events-outside-hash",
    "undecodable record dropped silently": "undecodable-dropped",
    "last-in-first-out after a partial fill": "newest-first-after-partial-fill",
    "no refund of price improvement": "improvement-not-refunded",
    "funds released twice when cancel meets fill": "released-twice",
    "a client's retry becoming a second order": "retry-places-again",
    "the retry memory lost on restart": "retry-memory-lost",
    "finished orders in the active list": "finished-orders-listed",
    "live orders dropped past the query's limit": "limit-before-filter",
    "another user's rows in it": "answer-of-another-user",
    "the maker's trade row not written": "maker-trade-missing",
    "reads at ONE": "reads-at-one",
    "a bounded queue that drops when full": "input-dropped-when-full",
}
"""The defects in the words of design section 9, and their names here."""

SILENT = Progress(sys.stderr)


def attributes(defect: Defect) -> list[object]:
    return [vars(each.owner)[each.attribute] for each in defect.replacements]


def test_gallery_has_exactly_the_defects_of_the_design() -> None:
    assert sorted(DESIGN.values()) == sorted(GALLERY)


@pytest.mark.parametrize("defect", GALLERY.values(), ids=list(GALLERY))
def test_defect_names_invariants_and_faults_that_there_are(defect: Defect) -> None:
    assert defect.caught_by
    assert set(defect.caught_by) <= set(ORDER)
    assert defect.faults == SWARM or set(defect.faults.split(",")) <= set(OPTIONS)
    assert defect.meaning
    assert defect.replacements


@pytest.mark.parametrize("defect", GALLERY.values(), ids=list(GALLERY))
def test_every_attribute_is_replaced_in_the_block_and_as_before_after_it(defect: Defect) -> None:
    before = attributes(defect)
    with applied(defect):
        inside = attributes(defect)
    assert all(new is not old for new, old in zip(inside, before, strict=True))
    assert all(new is old for new, old in zip(attributes(defect), before, strict=True))


@pytest.mark.parametrize("defect", GALLERY.values(), ids=list(GALLERY))
def test_every_attribute_is_as_before_when_the_block_fails(defect: Defect) -> None:
    before = attributes(defect)
    with pytest.raises(ZeroDivisionError), applied(defect):
        raise ZeroDivisionError
    assert all(new is old for new, old in zip(attributes(defect), before, strict=True))


def test_defect_whose_second_attribute_is_gone_leaves_the_first_as_it_was() -> None:
    intact = GALLERY["cancel-completion-missing"].replacements[0]
    gone = Replacement(intact.owner, "no_such_function", intact.make)
    broken = Defect("broken", "", (), (intact, gone))
    before = vars(intact.owner)[intact.attribute]
    with pytest.raises(AttributeError, match="no_such_function"), applied(broken):
        pass
    assert vars(intact.owner)[intact.attribute] is before


def test_attribute_is_not_replaced_twice() -> None:
    defect = GALLERY["cancel-completion-missing"]
    before = attributes(defect)
    with pytest.raises(RuntimeError, match="already"), applied(defect), applied(defect):
        pass
    assert attributes(defect) == before


def test_run_with_a_defect_leaves_the_next_run_intact() -> None:
    scenario = Scenario(seed=1, orders=20, users=3, duration_ns=2 * SECOND_NS, faults="none")
    defective = Scenario(**{**scenario.as_dict(), "defect": "maker-trade-missing"})
    before = simulate(scenario, SILENT).manifest.digest
    assert simulate(defective, SILENT).manifest.digest != before
    assert simulate(scenario, SILENT).manifest.digest == before


def test_no_name_is_the_intact_code() -> None:
    assert named("") is None


def test_unknown_defect_is_refused_with_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(ScenarioError):
        named("no-such-defect")
    monkeypatch.chdir(tmp_path)
    for command in (["run", "--defect", "no-such-defect"], ["defects", "power", "--only", "no-such-defect"]):
        monkeypatch.setattr("sys.argv", ["exchange-sim", *command])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        assert lines[0].startswith(
            "exchange-sim: unknown defect 'no-such-defect'; there are: maker-completion-missing,"
        )


def test_defects_are_listed_with_what_must_catch_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["exchange-sim", "defects"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    printed = capsys.readouterr().out
    for defect in GALLERY.values():
        assert f"{defect.name}\n    {defect.meaning}\n    caught by {' or '.join(defect.caught_by)};" in printed
