"""Training: recipes, the loop of a student, batches, and the maps of the teacher that are kept."""
