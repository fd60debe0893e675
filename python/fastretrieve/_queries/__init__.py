"""What is asked of a state: searches, filters, plans, self-joins, and their results."""
