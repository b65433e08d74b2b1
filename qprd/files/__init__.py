"""How files are replaced without loss: transactions, journal, backups, layout."""
