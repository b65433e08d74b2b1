"""The steps of ``qprd evaluate``."""
