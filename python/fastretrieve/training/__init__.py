"""Fit an encoder to data: ``fr.train``.

``fitting.py`` holds ``train``; ``run.py`` the loop; ``stepping.py`` one step; ``validation.py`` the
figures after an epoch; ``checkpoint.py`` the saved state; ``journal.py`` and ``pictures.py``
the log, curves and sheets; ``augmentation.py`` decides how images may be changed; ``synthetic.py``
adds generated ones; ``rehearsal.py`` holds items out by turns. What an encoder must offer is in
``encoders/protocol.py``; seven optional things are known here: its ``recipe``
(``encoders/recipe.py``); its ``views``, if it makes changed views itself; ``needs_class_mates``,
where its loss compares items of one class; the methods ``before_training(batches)`` and
``after_training(batches)``, which see training items before the first step and after every epoch;
and, where ``weighs_parts`` is true, ``choose(items)``, which sees training batches with labels
before the first step, ``share_scores(gallery, held_out)``, how well held-out batches with labels
find their neighbours by each of its choices, and ``adopt(scores)`` (added up, of rehearsals).
"""

from fastretrieve._common.needs import wanting

with wanting("networks", "training"):
    from fastretrieve.encoders.blocks.views import Views
    from fastretrieve.training.checkpoint import CheckpointError
    from fastretrieve.training.fitting import TrainingResult, train
    from fastretrieve.training.stepping import DivergedError
    from fastretrieve.training.synthetic import Synthesis

__all__ = [
    "CheckpointError",
    "DivergedError",
    "Synthesis",
    "TrainingResult",
    "Views",
    "train",
]
