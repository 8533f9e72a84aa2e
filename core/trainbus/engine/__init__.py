"""The loop: from a task, a trainer and loaders to a trained model."""
