"""Recipes of Q/DQ graphs by name, as the targets own them."""

from __future__ import annotations

from ghostdeploy import targets

RECIPES = {row.recipe.name: row.recipe for row in targets.ROWS if row.recipe is not None and row.recipe.op_types}
