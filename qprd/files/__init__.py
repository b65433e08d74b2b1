"""Replacing files without loss: transactions, journal, backups, layout."""
