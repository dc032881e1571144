"""Studies: grids of recipes × seeds with all measurements, and a store in which no job runs twice."""
