"""Training OFVL-MS on the frames of several scenes at once (paper Sec. 3.3)."""
