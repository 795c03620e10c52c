"""SAM 1: names, variants, reference."""
