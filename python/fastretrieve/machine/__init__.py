"""The abilities of this machine: ``doctor`` lists them, ``proving`` compares the tiers of a GPU."""
