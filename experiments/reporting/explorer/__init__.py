"""The explorer: what a model keeps of a picture, and what it answers, on a page with a slider for every head."""
