"""Results of a prediction: contours, lesion points, and the files that hold them."""
