"""What the problem is: tasks, rows, cleaning, categories, folds, metrics, and made-up competitions."""
