"""Champion and challenger: whether a trained model takes the place of the one in use, why, and how to go back."""
