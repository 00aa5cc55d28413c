"""An artifact of a run as a folder that runs elsewhere, and whether what it states holds there."""
