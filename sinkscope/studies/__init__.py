"""Studies: grids of recipes × seeds with all that is measured on them, in a store that is never filled twice."""
