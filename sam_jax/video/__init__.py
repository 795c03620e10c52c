"""Objects followed through video (SAM 2): state in, state out."""
