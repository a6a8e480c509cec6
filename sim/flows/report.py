"""What became of a recorded file: counts of what was read, applied, and could not be applied; or one clear error."""

from collections.abc import Iterator
from dataclasses import dataclass, field


class FlowError(ValueError):
    """A file that is not a recorded flow. One line: the file, where in it, what is wrong, and what was expected."""


@dataclass
class FlowReport:
    """Counts by type of message. Every message read is applied, not applied for a reason, or has nothing to apply.

    `not_applied` is type -> reason -> count. `kind` is the format in words. `operations` counts what the flow
    holds, deposits included; one operation may stand for several executions of one sweep.
    """

    kind: str
    read: dict[str, int] = field(default_factory=dict)
    applied: dict[str, int] = field(default_factory=dict)
    informational: dict[str, int] = field(default_factory=dict)
    not_applied: dict[str, dict[str, int]] = field(default_factory=dict)
    operations: int = 0

    def count_applied(self, message: str) -> None:
        """One more message of this type became part of the flow."""
        self.read[message] = self.read.get(message, 0) + 1
        self.applied[message] = self.applied.get(message, 0) + 1

    def count_informational(self, message: str) -> None:
        """One more message that asks for nothing: a system event, a directory entry."""
        self.read[message] = self.read.get(message, 0) + 1
        self.informational[message] = self.informational.get(message, 0) + 1

    def count_not_applied(self, message: str, reason: str) -> None:
        """One more message that could not become part of the flow, and why."""
        self.read[message] = self.read.get(message, 0) + 1
        reasons = self.not_applied.setdefault(message, {})
        reasons[reason] = reasons.get(reason, 0) + 1

    def count(self, message: str, reason: str) -> None:
        """Count a message as applied when `reason` is empty, else as not applied."""
        if reason:
            self.count_not_applied(message, reason)
        else:
            self.count_applied(message)

    @property
    def messages(self) -> int:
        """How many messages were read."""
        return sum(self.read.values())

    @property
    def messages_not_applied(self) -> int:
        """How many of them could not be applied."""
        return sum(sum(reasons.values()) for reasons in self.not_applied.values())

    def not_applied_for(self, reason: str) -> int:
        """How many could not be applied for that reason."""
        return sum(reasons.get(reason, 0) for reasons in self.not_applied.values())

    def as_dict(self) -> dict[str, object]:
        """Plain data for JSON, in a fixed order."""
        return {
            "format": self.kind,
            "messages": self.messages,
            "operations": self.operations,
            "read": dict(sorted(self.read.items())),
            "applied": dict(sorted(self.applied.items())),
            "informational": dict(sorted(self.informational.items())),
            "not_applied": {
                message: dict(sorted(reasons.items())) for message, reasons in sorted(self.not_applied.items())
            },
        }

    def lines(self) -> Iterator[str]:
        """The report for a person."""
        yield (
            f"{self.kind}: {self.messages:,} messages read, {sum(self.applied.values()):,} applied, "
            f"{self.messages_not_applied:,} could not be applied, {sum(self.informational.values()):,} ask for nothing"
        )
        yield from (f"  {each}" for each in self.reasons())

    def reasons(self) -> Iterator[str]:
        """How many of which messages could not be applied, and why."""
        for message, reasons in sorted(self.not_applied.items()):
            for reason, count in sorted(reasons.items()):
                yield f"{count:,} of {message}: {reason}"
