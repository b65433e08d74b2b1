"""Pictures and pages that people look at, and the choice of regions to review."""
