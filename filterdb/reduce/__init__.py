"""What the passes over stored filters compute, and in which axes. `filterdb.engine` runs the passes.

`basis` has the axes and the range of coefficients and histograms. `reductions` has extremes and histograms by layer,
`joint_densities` joint histograms by group. `model_summary` reduces a model file. `integrity` verifies a database.
"""
