"""The scripts of an example import their neighbors, as Python does when it runs one of them."""

from __future__ import annotations

import sys
from pathlib import Path

CAMELYON16 = Path(__file__).resolve().parents[2] / "examples" / "camelyon16"
sys.path.insert(0, str(CAMELYON16))
