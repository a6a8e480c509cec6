"""`exchange-sim faults`: every fault that can strike, and when."""

from typing import Annotated

import typer

from sim.commands.base import Json


def faults(
    json: Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print docs/faults.md instead.")] = False,
) -> None:
    """Every fault by name: what happens, what it can hit, its parameters with their units, and its moments."""
    import json as json_text

    from sim.faults.page import as_data, lines, moments_as_data, page

    if json:
        print(json_text.dumps({"faults": as_data(), "moments": moments_as_data()}))
    elif markdown:
        print(page(), end="")
    else:
        print("\n".join(lines()))
