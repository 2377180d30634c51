"""Who waits for whom and for what: locks, completions, I/O, the end of work; and who is to bring it about."""
