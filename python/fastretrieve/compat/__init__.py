"""Doors for code written for other libraries.

``compat.faiss`` for scripts that use FAISS's flat indexes, ``compat.sklearn`` for pipelines,
``compat.metric_learning`` for pytorch-metric-learning. Nothing here is imported by the rest of the
package, and each module imports no more than the library that its name says.
"""
