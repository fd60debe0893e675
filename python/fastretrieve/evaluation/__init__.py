"""How well do vectors retrieve? ``evaluate`` measures it and ``classify`` uses it.

``retrieval.py`` holds ``evaluate``, ``voting.py`` ``classify``, ``generation.py``
``evaluate_generator`` for the images that an encoder draws. What the first two take, vectors or
items, is made one by ``labelled.py``. (No module is called ``evaluate``: it would shadow the
function.)
"""

from fastretrieve._common.needs import wanting

with wanting("networks", "evaluation"):
    from fastretrieve.evaluation.generation import GeneratorEvaluation, evaluate_generator
    from fastretrieve.evaluation.retrieval import Evaluation, evaluate
    from fastretrieve.evaluation.voting import Classification, classify

__all__ = [
    "Classification",
    "Evaluation",
    "GeneratorEvaluation",
    "classify",
    "evaluate",
    "evaluate_generator",
]
