from __future__ import annotations

import pytest

from kdumpy.image.modules import ModuleTree
from kdumpy.vm import kernels


@pytest.fixture(scope="session")
def installed_tree() -> ModuleTree:
    """The modules of a real kernel package, from the laboratory's cache (40 MB are downloaded once)."""
    return kernels.get("6.1").modules
