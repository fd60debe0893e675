"""Building blocks of encoders in torch: networks, losses, reductions, views, steps."""
