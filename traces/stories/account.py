"""The story of a user's account of one asset: the orders whose locks are not what they need, and its ledger."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from schema.codes import LIVE_STATUSES, EntryKind, Side
from traces.matching_rows import ints, rows
from traces.stories.words import clock_text, each_row, name_of, state_text
from traces.trace import Trace

ACCOUNT_ORDERS_SHOWN: Final = 5
"""How many orders the story of an account names."""
ENTRIES_SHOWN: Final = 8
"""How many ledger entries the story of an account tells, the last ones."""


def account_story(trace: Trace, user_id: int, asset_id: int) -> list[str]:
    """What a user's balance of one asset is made of: the orders whose locks are not what they need, and the last
    entries of the ledger; those of these orders, where there are any. Amounts are in the asset's smallest unit."""
    entries = _entries(trace, user_id, asset_id)
    unsound = unsound_locks(trace, user_id, asset_id)
    lines = [each.told for each in unsound[:ACCOUNT_ORDERS_SHOWN]]
    if len(unsound) > ACCOUNT_ORDERS_SHOWN:
        lines.append(f"... and {len(unsound) - ACCOUNT_ORDERS_SHOWN} more orders like these")
    shown = entries
    if unsound:
        named = [each.order_id for each in unsound[:ACCOUNT_ORDERS_SHOWN]]
        shown = rows(entries, np.isin(ints(entries, "order_id"), named))
    if len(shown) > ENTRIES_SHOWN:
        lines.append(
            f"the last {ENTRIES_SHOWN} of {len(shown)} entries of the ledger{' for these' if unsound else ''}:"
        )
    for each in each_row(shown.tail(ENTRIES_SHOWN)):
        order = f" for order {each.order_id}" if each.order_id else ""
        lines.append(
            f"{clock_text(each.t)}  {'ledger':<14} {each.ledger_seq}: {name_of(EntryKind, each.kind)}{order}: "
            f"available {each.available_delta:+}, locked {each.locked_delta:+}; then {each.available_after} and "
            f"{each.locked_after} (balance.events {each.partition}@{each.offset})"
        )
    for look, when in trace.looks:
        final = trace.final("user_balances", look)
        its = (ints(final, "user_id") == user_id) & (ints(final, "asset_id") == asset_id)
        for each in each_row(rows(final, its)):
            what = f"available {each.available}, locked {each.locked}, after entry {each.ledger_seq}"
            lines.append(f"{clock_text(each.t)}  {'store':<14} {when}: row of user_balances: {what}")
    return lines or ["the ledger has no entry of it"]


def _entries(trace: Trace, user_id: int, asset_id: int) -> pd.DataFrame:
    entries = trace.ledger_entries
    return rows(entries, (ints(entries, "user_id") == user_id) & (ints(entries, "asset_id") == asset_id))


@dataclass(frozen=True, slots=True)
class _Lock:
    """What the ledger holds locked for an order, which is not what the engine's last word on the order needs."""

    order_id: int
    held: int
    needed: int
    state: str

    @property
    def told(self) -> str:
        return f"order {self.order_id} has {self.held} locked and needs {self.needed}: {self.state}"


def unsound_locks(trace: Trace, user_id: int, asset_id: int) -> list[_Lock]:
    """The user's orders for which the ledger holds more or less of the asset than they need, by the id."""
    entries = _entries(trace, user_id, asset_id)
    held: dict[int, int] = {}
    for order_id, delta in zip(ints(entries, "order_id").tolist(), ints(entries, "locked_delta").tolist(), strict=True):
        held[order_id] = held.get(order_id, 0) + delta
    symbols = trace.topology.symbols.symbols
    needed, states = {}, {}
    last = trace.last_states
    for each in each_row(rows(last, ints(last, "user_id") == user_id)):
        states[each.order_id] = state_text(each)
        symbol = symbols.get(each.symbol_id)
        if symbol is None or each.status not in LIVE_STATUSES:
            continue
        rest = each.quantity - each.filled_quantity
        asset, amount = (
            (symbol.quote, symbol.quote_atoms(each.price, rest))
            if each.side == Side.BUY
            else (symbol.base, rest * symbol.lot_atoms)
        )
        if asset.asset_id == asset_id:
            needed[each.order_id] = amount
    return [
        _Lock(each, held.get(each, 0), needed.get(each, 0), states.get(each, "the engine never placed it"))
        for each in sorted({*held, *needed})
        if each and held.get(each, 0) != needed.get(each, 0)
    ]
