"""What the passes over stored filters compute, and in which axes; `filterdb.engine` runs them.

`basis` decides what coefficients and histograms are taken in; `reductions` holds extremes and histograms by layer,
`joint_densities` joint histograms by group; `integrity` verifies a database.
"""
