"""Randomness for jitter, from the operating system: two processes started at once must not draw the same."""

import secrets


class SystemRandomness:
    """Implements `schema.ports.Randomness`."""

    def below(self, n: int) -> int:
        """A uniform integer from 0 to n - 1."""
        return secrets.randbelow(n)
