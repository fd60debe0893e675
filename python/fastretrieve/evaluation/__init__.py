"""How well do vectors retrieve? ``evaluate`` measures it and ``classify`` uses it.

``retrieval.py`` holds ``evaluate``, ``voting.py`` ``classify``; what both take, vectors or items,
is made one by ``labelled.py``. (No module is called ``evaluate``: it would shadow the function.)
"""

from fastretrieve._common.needs import wanting

with wanting("networks", "evaluation"):
    from fastretrieve.evaluation.retrieval import Evaluation, evaluate
    from fastretrieve.evaluation.voting import Classification, classify

__all__ = [
    "Classification",
    "Evaluation",
    "classify",
    "evaluate",
]
