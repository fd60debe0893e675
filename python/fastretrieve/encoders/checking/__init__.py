"""The checks of an encoder, one function a promise; ``fastretrieve.testing`` runs them."""
