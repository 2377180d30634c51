"""Where the memory went, and who took it."""
