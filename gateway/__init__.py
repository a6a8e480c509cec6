"""The gateway: client orders in, answers and reads out (design sections 3 and 4.7)."""
