"""What is wrong with samples, and the repairs; one kind of fault per module."""
