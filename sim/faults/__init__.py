"""Faults: what can go wrong, when it does, and doing it (design section 8).

A module for each kind of fault (`network`, `kafka`, `cassandra`, `hosts`, `clients`, `combined`, `assumptions`)
lists its faults with their `options` and says what each does to the world; `aims` says whom, `moments` and `watch`
when. `catalogue` puts them all in order, and docs/faults.md is made from it.
`plan` draws from the seed which fault strikes when, as data; `checks` looks at what people wrote instead of it;
`injector` carries a plan out, counts the strikes that began, and heals everything. What they hit is counted by the
simulated servers.
"""
