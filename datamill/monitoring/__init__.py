"""New data, window by window: read once each, seen as the model sees it, judged against what the model was measured on.

Nothing is imported here: the stage that writes a model's reference depends on ``reference`` alone.
"""
