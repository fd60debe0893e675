"""What ``fastretrieve.compat.faiss`` consists of: that module is the door."""
