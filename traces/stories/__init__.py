"""Stories: what the trace knows of an order or an account, told in the order in which it happened."""
