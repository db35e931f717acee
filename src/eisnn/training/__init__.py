"""Training: recipes, the Lightning module and data module, and runs with their folders.

Nothing heavy is imported here; :mod:`eisnn.training.run` brings Lightning.
"""
