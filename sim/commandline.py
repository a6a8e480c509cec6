"""The command line, `exchange-sim` (design section 10).

Exit status: 0 when all invariants hold, 1 when one is violated, 2 when the command could not do what was asked, with
one clear line on stderr and no traceback.
"""

import os
import signal
import sys
from typing import Final, NoReturn

import typer

from sim.commands import hunting, live, runs
from sim.commands.audit import audit
from sim.commands.base import HOLDS, UNUSABLE, CommandError
from sim.commands.conform import conform
from sim.commands.faults import faults
from sim.commands.stack import stack

app = typer.Typer(
    name="exchange-sim",
    help="Deterministic simulation and verification of a trading exchange's order pipeline.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

for command in (
    runs.run,
    runs.check,
    runs.explain,
    runs.replay,
    hunting.campaign,
    hunting.shrink,
    faults,
    runs.bench,
    conform,
    live.serve,
    live.drive,
    audit,
):
    app.command()(command)
app.add_typer(hunting.gallery, name="defects")
app.add_typer(stack, name="stack")


INTERRUPTED: Final = 130
"""What typer makes of an interrupt."""


def main() -> NoReturn:
    """Entry point; turns every expected error into one line and exit status 2."""
    for stream in ("stdout", "stderr"):
        if getattr(sys, stream) is None:  # closed by whoever started us
            setattr(sys, stream, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    # As an interrupt does: what is under way is ended, and what had ended is kept.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        status = app(sys.argv[1:] or ["--help"], standalone_mode=False)
        if status == INTERRUPTED:
            status = _refuse("interrupted")
        sys.stdout.flush()
    except typer.TyperException as error:
        # Usage errors know which option they are about; the plain text does not say so.
        status = _refuse(error.format_message() if hasattr(error, "format_message") else str(error))
    except (typer.Abort, KeyboardInterrupt):
        status = _refuse("interrupted")
    except BrokenPipeError:
        status = _unread()
    except SystemExit as ended:
        # What typer makes of a broken pipe is status 1, which says here that an invariant is violated.
        if not isinstance(ended.__context__, BrokenPipeError):
            raise
        status = _unread()
    except Exception as error:
        if not _is_expected(error):
            raise
        # Of a server that failed, its own last words; the line that counts comes last.
        print("".join(f"  | {line}\n" for line in getattr(error, "log_lines", [])), end="", file=sys.stderr)
        status = _refuse(str(error) or type(error).__name__)
    sys.exit(status or HOLDS)


def _is_expected(error: Exception) -> bool:
    """Whether an error is about what was asked, not a mistake of ours."""
    from sim.campaign.results import CampaignError
    from sim.campaign.workers import WorkersError
    from sim.flows import FlowError
    from sim.scenario import ScenarioError
    from sim.shrink.target import ShrinkError
    from sim.stack.settings import StackError
    from traces.manifest import TraceError

    expected = (
        CommandError,
        CampaignError,
        WorkersError,
        FlowError,
        ScenarioError,
        ShrinkError,
        StackError,
        TraceError,
        OSError,
    )
    return isinstance(error, expected)


def _unread() -> int:
    """The reader of our output has gone; what is still buffered goes nowhere, instead of failing once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return _refuse("nobody reads the output any more")


def _refuse(message: str) -> int:
    line = " ".join(message.split())
    print(f"exchange-sim: {line}", file=sys.stderr)
    return UNUSABLE


if __name__ == "__main__":
    main()
