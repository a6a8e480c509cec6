"""The order book, the matching engine, the balance core, and their services (design sections 4.1 to 4.3)."""
