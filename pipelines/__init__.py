"""Models and the order of work: recipes, backbones, stages, the engine and the command line."""
