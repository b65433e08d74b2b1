"""The scripts of an example import their neighbors, as Python does when it runs one of them."""

from __future__ import annotations

import sys
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
CAMELYON16 = EXAMPLES / "camelyon16"
for folder in (CAMELYON16, EXAMPLES / "review_loop"):
    sys.path.insert(0, str(folder))
