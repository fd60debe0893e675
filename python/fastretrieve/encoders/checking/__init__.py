"""What an encoder must do, one function a promise; ``fastretrieve.testing`` runs them."""
