"""Recipes of Q/DQ graphs by name, as the targets own them."""

from __future__ import annotations

from ghostdeploy import targets

RECIPES = {row.recipe.name: row.recipe for row in targets.ROWS if row.recipe is not None and row.recipe.op_types}

# Those of engines that fuse Q/DQ pairs into their layers: the linter's rules are about them.
FUSED = {name: recipe for name, recipe in RECIPES.items() if not recipe.rounds_in_layers}
