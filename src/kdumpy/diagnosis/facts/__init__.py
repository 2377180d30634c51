"""Parts of the diagnosis value that are large enough for files of their own; `model` has the whole."""
