"""The names of the services: they begin those of hosts and transactional ids, and are those of consumer groups."""

from typing import Final

GATEWAY: Final = "gateway"
UBSCORE: Final = "ubscore"
MATCHING: Final = "matching"
SETTLEMENT: Final = "settlement"
