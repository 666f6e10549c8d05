"""The model store: finds the local folder of a model whose files all have the digests of the model lock."""
