"""The host's wall clock."""

import time


class WallClock:
    """Implements `schema.ports.Clock`."""

    def now_ns(self) -> int:
        """Nanoseconds since 1970-01-01T00:00:00Z, as the host believes."""
        return time.time_ns()
