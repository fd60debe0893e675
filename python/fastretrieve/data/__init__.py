"""Data sets: their items, how they are read, and in which order.

``open_dataset`` takes folders, tables, arrays and files; ``Loader`` reads batches ahead of the
network. Nothing here imports torch: labels and orders are NumPy arrays.
"""

from fastretrieve._common.needs import wanting

with wanting("networks", "reading images"):
    from fastretrieve.data.dataset import Dataset
    from fastretrieve.data.errors import DataError, Skipped
    from fastretrieve.data.loader import Loaded, Loader, longest_side
    from fastretrieve.data.modalities import read_item
    from fastretrieve.data.open import open_dataset
    from fastretrieve.data.readers import read_image
    from fastretrieve.data.sampling import balanced_batches, balanced_order, epoch_order

__all__ = [
    "DataError",
    "Dataset",
    "Loaded",
    "Loader",
    "Skipped",
    "balanced_batches",
    "balanced_order",
    "epoch_order",
    "longest_side",
    "open_dataset",
    "read_image",
    "read_item",
]
