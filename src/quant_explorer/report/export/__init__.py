"""What an export says: model card, pre-processing, class names, `predict.py`, requirements."""
