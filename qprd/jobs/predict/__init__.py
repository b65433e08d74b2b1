"""The steps of `qprd predict`."""
