"""Numbers from labels, predictions and scores."""
