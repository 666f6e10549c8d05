"""The model store: from a model's name to a local folder whose every file has the digest that the lock tells."""
