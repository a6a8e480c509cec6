"""`python -m sim` is `exchange-sim`, for whoever starts it as a child in the same environment."""

from sim.commandline import main

main()
