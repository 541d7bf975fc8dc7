"""The embedded models and their task: questions about pictures full of handwritten digits."""
