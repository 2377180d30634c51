"""The crashed kernel's memory as numpy arrays: struct pages, objects of slabs, what a search goes through."""
