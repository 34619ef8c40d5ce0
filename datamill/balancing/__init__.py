"""Evening out the classes of the training split: what is done, what it makes, and the plan it ends in."""
