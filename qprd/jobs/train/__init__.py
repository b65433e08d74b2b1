"""The steps of `qprd train`."""
