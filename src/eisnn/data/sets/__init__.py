"""The data sets: where their files are, and what their parts and classes are."""
