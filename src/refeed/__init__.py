"""refeed: model-data feedback loops. Generate, update the data by a policy, train, evaluate, repeat."""

__version__ = "0.1.0"
