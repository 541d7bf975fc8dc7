"""Head importance: estimators, adaptive budgets, and how estimates compare."""
