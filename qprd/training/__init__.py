"""How the student learns: recipes, the loop, batches, the teacher's kept maps."""
