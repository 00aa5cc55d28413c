"""From a study to JSON, Markdown, a terminal table and a plot: no torch, no runtime, only the study file."""
