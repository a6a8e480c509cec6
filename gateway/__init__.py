"""The gateway: client orders in, answers and reads out (design sections 3 and 4.7).

requests.py    what a client may send, and what becomes of it: pure
order_ids.py   ids that no other gateway, and no other life of this one, gives out
core.py        hand a request in, wait for the answer and the engine's verdict
"""
