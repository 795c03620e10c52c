"""SAM 2: what it has beside the prompt encoder and decoder parts that it shares with SAM."""
