"""Analysis: a study to results. No torch, no runtime, no drawing."""
