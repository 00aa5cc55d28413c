"""quant-explorer: which compressed version of my vision model should I ship?"""

__version__ = "0.1.0"
