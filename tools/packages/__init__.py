"""`make packages`: kdumpy as a .deb and an .rpm, in a private virtual environment (docs/packaging.md says why)."""
