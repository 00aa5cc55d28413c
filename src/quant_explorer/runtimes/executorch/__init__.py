"""ExecuTorch with XNNPACK: a .pte program."""
