"""What this machine can do: ``doctor`` says it, ``proving`` compares the tiers of a GPU."""
