"""Progress of long work: a line on a terminal, nothing when piped (design section 10)."""

from typing import Final, TextIO


class Progress:
    """Shows one line that is rewritten in place, only where a person is watching; without a stream, nothing."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream if stream is not None and stream.isatty() else None
        self._width = 0

    def show(self, text: str) -> None:
        """Replace the line."""
        if self._stream is not None:
            self._stream.write("\r" + text.ljust(self._width))
            self._stream.flush()
            self._width = len(text)

    def clear(self) -> None:
        """Take the line away, before something lasting is printed."""
        if self._stream is not None and self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._stream.flush()
            self._width = 0


SILENT: Final = Progress(None)
"""For a run that is one of many: their progress is told by who hands them out."""
