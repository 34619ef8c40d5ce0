"""The data work of deep learning as one pipeline: every sample accounted for, from source to exported model."""

__version__ = "0.1.0"
