"""``fastretrieve demo``: train an encoder on real pictures and search with it.

``command`` tells the story, ``learning`` trains the encoder and builds the gallery, ``comparing``
says how right and how fast a search is, ``sheet`` draws what was found. Torch is needed by
``learning`` alone.
"""
