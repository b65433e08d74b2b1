"""What several tests use: projects, slides, models, and programs that are killed."""
