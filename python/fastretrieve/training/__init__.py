"""Fit an encoder to data: ``fr.train``.

``fitting.py`` holds ``train``; ``launching.py`` sets up a run; ``run.py`` is the loop,
``stepping.py`` one step; ``pace.py`` chooses threads and precision; ``validation.py`` has the
figures after an epoch; ``checkpoint.py`` the saved state; ``journal.py`` and ``pictures.py`` the
log, curves and sheets; ``augmentation.py`` decides how images may be changed; ``synthetic.py`` adds
generated ones; ``rehearsal.py`` holds items out by turns; ``features.py`` trains the head of a
frozen encoder on its vectors. What an encoder must offer is in ``encoders/protocol.py``. Optional
things are known here:

- ``recipe`` (``encoders/blocks/recipe.py``);
- ``views``, if it makes changed views itself;
- ``needs_labels``, where it learns nothing without; ``needs_class_mates``, where its loss compares
  items of one class;
- ``learns_captions``, where it learns from pictures with captions: ``text`` is its encoder of
  texts, the items of its ``head`` are pairs of vectors (``captions.py``), and in the end it is
  trained anew on all pairs (``finishing.py``);
- the method ``measure(batches)``, where the encoder itself says its figures of held-out items;
- ``judge``, the figure of held-out items that picks the epoch; ``useful_at_start``, where the
  untrained encoder is kept unless an epoch beats it;
- ``frozen`` and ``head``: only the head learns, from vectors that ``frozen`` makes once;
- ``sees_items``, how many training items ``before_training`` may see;
- the methods ``before_training(batches)`` and ``after_training(batches)``, which see training items
  before the first step and after every epoch;
- ``weighs_parts``: where it is true, ``parts_of(batch)`` gives what ``join(parts)`` makes vectors
  of, so that items pass once; ``share_scores(gallery, held_out)`` says how well held-out items find
  their neighbours by each choice, ``adopt(scores)`` takes the best, and ``fit_parts(parts)``, if it
  is there, fits to it; ``choose(items)`` sees training batches with labels before the first step;
- ``rehearses``: copies give these scores where too few items are there to hold some out.
"""

from fastretrieve._common.needs import wanting

with wanting("networks", "training"):
    from fastretrieve.encoders.blocks.views import Views
    from fastretrieve.training.checkpoint import CheckpointError
    from fastretrieve.training.fitting import train
    from fastretrieve.training.result import TrainingResult
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
