"""How a slide gets its scores: from large fields, or patch by patch."""
