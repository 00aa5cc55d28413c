"""What a run does when something breaks: worker, parent, disk, files; and a second process beside it."""
