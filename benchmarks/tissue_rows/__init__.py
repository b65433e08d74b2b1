"""Images with known tissue, and the tissue rules of other programs."""
