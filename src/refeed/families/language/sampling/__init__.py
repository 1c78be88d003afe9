"""Engines that draw stories: native code on a processor, plain PyTorch elsewhere. Both read the same `Network`."""
