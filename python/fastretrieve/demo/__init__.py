"""``fastretrieve demo``: real pictures, an encoder trained on them, and what a search then finds.

``command`` tells the story, ``learning`` trains the encoder and builds the gallery, ``comparing``
says how right and how fast a search is, ``sheet`` draws what was found. Torch is needed by
``learning`` alone.
"""
