"""Discover readable rules that allocate number formats to a network's layers."""

__version__ = "0.1.0"
