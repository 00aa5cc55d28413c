"""What a model costs and what a machine can give: counts, roofline, energy."""
