"""From sources to committed items: listing, comparing, reading, encoding."""
