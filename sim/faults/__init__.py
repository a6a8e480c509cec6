"""Faults: what can go wrong, when it does, and doing it (design section 8).

`plan` draws from the seed which fault strikes when, as data; `catalogue` lists every fault with its options and says
what it does to the world; `injector` carries a plan out, counts what really suffered, and heals everything.
"""
