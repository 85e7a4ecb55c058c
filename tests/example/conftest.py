from __future__ import annotations

from pathlib import Path

import pytest

from .processes import make_environment


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return make_environment(tmp_path)
