"""Training of the student: recipes, the loop, batches, the teacher's kept maps."""
