"""Engines that draw stories: native code on a processor, plain PyTorch elsewhere, vLLM on request. All draw tokens alike."""
