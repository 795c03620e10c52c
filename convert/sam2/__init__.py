"""SAM 2 and 2.1: names, variants, reference, stages."""
