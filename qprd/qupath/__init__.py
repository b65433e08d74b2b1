"""QuPath projects: entries, annotations, classes, write-back. Knows no torch."""
