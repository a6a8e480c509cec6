"""The contract between the services: events, wire codec, topics, symbols, tables and ports.

Everything here is pure: no clock, no randomness, no input or output, and nothing of ours is imported. What two
services must agree on stands here once (design section 4).
"""
