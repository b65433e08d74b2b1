"""What a prediction leaves: files, contours, lesion points."""
