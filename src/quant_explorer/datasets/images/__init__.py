"""What is done to the pixels of images: read, framed, normalized, varied in training."""
