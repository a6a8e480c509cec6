"""The sub-commands of `exchange-sim`, by what they are about; `sim.commandline` puts them together."""
