"""Fitting a network: the order of batches, the learning rate's course, checkpoints, the loop and its history."""
