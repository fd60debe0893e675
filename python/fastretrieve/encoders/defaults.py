"""What to take where nothing is asked for."""

from __future__ import annotations

from typing import Any

# Fitted to a thousand pictures it finds most without training (docs/encoders.md).
FITTED_PRETRAINED: dict[str, Any] = {"image_size": 128, "dim": 512}
