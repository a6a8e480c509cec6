"""Sources of client operations: a synthetic market, and recorded flow from files (design 8, Clients, and 10).

A flow is a sequence of `Operation`s, plain data in the order of time; `sim.clients` carries them out. Nothing is drawn
while they are carried out, so an operation can be dropped from a failing run and the others stay as they were.

    operations     what a client can do, as data
    market         the default symbols and assets
    synthetic      a flow drawn from the seed;  hostile: requests that no gateway may take
    recorded       `load_flow`: a flow from a file, its format known by content
    itch lobster jsonl   the formats;  feed: a book feed turned back into requests;  report: what could not be applied
    request_form   an operation as the JSON that a client sends

What the synthetic market is modelled on, and where it departs from it on purpose:

- *Distance of orders from the price*: a power law of density x^-2.2, the exponent that the workload asks for. Measured
  densities lie on both sides of it: about x^-2.5 in London over two decades up to 2,000 ticks (Zovko and Farmer 2002,
  "The power of patience", where 1.5 is the exponent of the cumulative distribution), and so flat in Paris that the mean
  diverges, which is an exponent below 2 (Bouchaud, Mezard and Potters 2002, "Statistical properties of stock order
  books"). Ours ends at 2,000 ticks, too.
- *Sizes*: a power law of density x^-1.5, up to 400 lots. Measured are about 2 for limit and 2.4 for marketable orders
  (Maslov and Mills 2001, "Price fluctuations from the order book perspective"). Flatter on purpose: an order then meets
  several makers more often, and fills that leave a rest are what order tracking fails on.
- *Cancels*: 80% of the orders that may rest, most of those soon, after a two-hundredth of the flow on average. Measured
  are around 95% in London (Machain and Dufour 2013), and on INET over a third within two seconds (Hasbrouck and Saar
  2009, "Technology and liquidity provision"). Fewer on purpose: more orders live to be filled or replaced.
- *Arrivals*: bursts whose size is a power law, at random times. Order flow excites itself, which Hawkes processes model
  well (Bacry, Mastromatteo and Muzy 2015); bursts give the same pressure on queues at a fraction of the cost.
- *The middle*: a walk by single ticks with rare jumps of 5 to 200, so that resting orders are run over.
- *Shares* of order types: round figures of the workload (about 15% immediate-or-cancel), not a measurement.
- *Who*: the activity of users, and of symbols, falls off with the square root of their rank. An assumption.
- *Accidents* (races, repeats, reused ids, trespasses, hostile bytes) are as frequent as a short run needs to meet each.

The generator keeps no book, so it can ask for things that are no longer possible, as clients do: a cancel may come too
late, a replaced order may be gone.
"""

from sim.flows.market import make_topology
from sim.flows.operations import Operation
from sim.flows.recorded import RecordedFlow, load_flow
from sim.flows.report import FlowError, FlowReport
from sim.flows.synthetic import synthetic_flow

__all__ = [
    "FlowError",
    "FlowReport",
    "Operation",
    "RecordedFlow",
    "load_flow",
    "make_topology",
    "synthetic_flow",
]
