"""Recipes: one YAML file for each family, every number with its source, and what reads them.

Its border: data only.
"""

from .recipe import OnPolicy, Recipe, RecipeError, Stage, family_recipe, read_recipe

__all__ = ["OnPolicy", "Recipe", "RecipeError", "Stage", "family_recipe", "read_recipe"]
