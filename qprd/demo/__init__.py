"""What the demo is made of: drawn slides and a project of them."""
