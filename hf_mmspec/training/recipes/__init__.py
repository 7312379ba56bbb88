"""Recipes: one YAML file for each family, every number with its source, and what reads them.

Its border: data only.
"""

from .recipe import Recipe, family_recipe, read_recipe
from .stage import OnPolicy, RecipeError, Stage

__all__ = ["OnPolicy", "Recipe", "RecipeError", "Stage", "family_recipe", "read_recipe"]
