"""Questions to a gallery: conditions, queries, matches and their pictures."""
