"""Index files, and the vectors of others: read, checked, written."""
