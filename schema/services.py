"""The names of the services: of their hosts, their consumer groups, in transactional ids, and of what a trace tells about hosts."""

from typing import Final

GATEWAY: Final = "gateway"
UBSCORE: Final = "ubscore"
MATCHING: Final = "matching"
SETTLEMENT: Final = "settlement"
