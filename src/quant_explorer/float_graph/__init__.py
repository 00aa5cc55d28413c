"""A float model and its torch.fx graph, spelled so that quantizers and compilers read it right."""
