"""What dead letters must tell, a part of no-lost-ack: what nobody could read can still be looked into."""

from schema import wire
from schema.events import DEAD_LETTER_BYTES_MAX
from schema.topics import DEAD_LETTERS, ORDER_REQUESTS
from traces.matching_rows import array, ints, rows
from traces.trace import Trace
from traces.verdicts import Findings


def check_dead_letters(trace: Trace, found: Findings) -> None:
    """A dead letter gives a reason, and the bytes of the record that it names, up to 64 KiB of them. The record is one
    of order.requests that the balance core could not decode, and it has no other letter."""
    letters: dict[tuple[int, int], bytes] = {}
    """The bytes that are held, by the record's partition and offset."""
    for batch, values in trace.decoded.log.values(DEAD_LETTERS):
        for offset, value in zip(batch.column(1).to_pylist(), values, strict=True):
            found.checked(1)
            try:
                letter = wire.DEAD_LETTER.decode(value)
            except wire.WireError as error:
                found.say("dead letter does not decode", letter=offset, reason=str(error))
                continue
            where = {"letter": offset, "topic": letter.topic, "partition": letter.partition, "offset": letter.offset}
            if not letter.reason:
                found.say("dead letter without a reason", **where)
            if letter.topic != ORDER_REQUESTS:
                found.say("dead letter of a topic that has none", **where)
            elif (letter.partition, letter.offset) in letters:
                found.say("second dead letter of one record", **where)
            else:
                letters[letter.partition, letter.offset] = letter.value
    if letters:
        _check_bytes(trace, found, letters)
        _check_decided(trace, found, letters)


def _check_bytes(trace: Trace, found: Findings, letters: dict[tuple[int, int], bytes]) -> None:
    """The bytes are the record's. A record may have left the log since."""
    for batch, values in trace.decoded.log.values(ORDER_REQUESTS):
        places = zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True)
        for (partition, offset), value in zip(places, values, strict=True):
            held = letters.get((partition, offset))
            due = (value or b"")[:DEAD_LETTER_BYTES_MAX]
            if held is not None and held != due:
                found.say(
                    "dead letter does not hold the record's bytes",
                    topic=ORDER_REQUESTS, partition=partition, offset=offset, bytes_due=len(due), bytes_held=len(held),
                )  # fmt: skip


def _check_decided(trace: Trace, found: Findings, letters: dict[tuple[int, int], bytes]) -> None:
    """The balance core did not do what such a record says."""
    events = trace.balance_events
    events = rows(events, (array(events, "input_topic") == ORDER_REQUESTS) & (array(events, "command") != ""))
    places = zip(ints(events, "input_partition").tolist(), ints(events, "input_offset").tolist(), strict=True)
    found.add(
        "dead letter of a request that was decided",
        events.iloc[[at for at, place in enumerate(places) if place in letters]],
        "input_topic", "input_partition", "input_offset", "command", "user_id", "request_id",
    )  # fmt: skip
