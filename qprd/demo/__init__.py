"""The material of the demo: drawn slides and a project of them."""
